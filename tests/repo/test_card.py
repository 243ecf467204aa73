"""Push, pull and verify, of both forms, against the server on loopback."""

from hub import Repo

from iti_llama.toolkit.repo.card import name_repo


def test_the_licence_is_that_of_the_base(hub, client):
    """As its own card says; where it says nothing, as its name suggests."""
    hub.repos["meta/carded"] = Repo()
    hub.repos["meta/carded"].commit({"README.md": b"---\nlicense: llama2\n---\n# x\n"})
    script = """
        del sys.modules["iti_llama"]
        from iti_llama.toolkit.repo.card import base_license
        assert base_license("meta/carded") == "llama2"
        assert base_license("meta-llama/Llama-3.1-8B-Instruct") == "llama3.1"
        assert base_license("meta-llama/Meta-Llama-3-8B") == "llama3"
        assert base_license("someone/else") is None and base_license(None) is None
    """
    client(script)


def test_the_quick_start_names_the_repo():
    text = name_repo('x\nrepo = "."  # here\n`iti-llama verify REPO`\n', "me/y")
    assert text == 'x\nrepo = "me/y"\n`iti-llama verify me/y`\n'
