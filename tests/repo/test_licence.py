"""The licence of a base, from its card or its name, and where it can be read."""

from hub import Repo

from iti_llama.toolkit.repo.licence import base_license, link_of


def test_the_licence_is_that_of_the_base(hub, client):
    """As its own card says; where it says nothing, as its name suggests."""
    hub.repos["meta/carded"] = Repo()
    hub.repos["meta/carded"].commit({"README.md": b"---\nlicense: llama2\n---\n# x\n"})
    script = """
        del sys.modules["iti_llama"]
        from iti_llama.toolkit.repo.licence import base_license
        assert base_license("meta/carded") == "llama2"
        assert base_license("meta-llama/Llama-3.1-8B-Instruct") == "llama3.1"
        assert base_license("meta-llama/Meta-Llama-3-8B") == "llama3"
        assert base_license("someone/else") is None and base_license(None) is None
    """
    client(script)


def test_a_folder_is_asked_and_one_without_a_card_has_none(tmp_path):
    assert base_license(str(tmp_path)) is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# x\n")
    assert base_license(str(tmp_path)) == "mit"


def test_the_link_is_the_licence_s_own_page_or_the_base_s(tmp_path):
    assert link_of("llama3.1", "meta-llama/Llama-3.1-8B") == "https://www.llama.com/llama3_1/license/"
    assert link_of("other", "someone/else") == "https://huggingface.co/someone/else"
    assert link_of("other", None) is None and link_of(None, "someone/else") is None
    assert link_of("other", str(tmp_path)) is None
