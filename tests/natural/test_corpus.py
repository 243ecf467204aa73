"""The corpus of natural code: its list, and what may be in it."""

from iti_llama.examples.natural.corpus import LEFT_OUT, LICENCES, LIST, TEST, VALIDATION, fit_to_read


def test_the_list_is_split_by_package_and_holds_no_copies_of_other_packages():
    rows = [line.split("\t") for line in LIST.read_text().splitlines()[1:]]
    assert len(rows) > 3000 and len({digest for *_, digest, _ in rows}) == len(rows)
    parts = {package: part for package, _, _, part, *_ in rows}
    assert {package for package in parts if parts[package] == "test"} == set(TEST)
    assert {package for package in parts if parts[package] == "validation"} == set(VALIDATION)
    for package, name, licence, part, *_ in rows:
        assert parts[package] == part and LICENCES[package] == licence
        assert not LEFT_OUT & set(name.split("/"))


def test_what_is_no_code_as_people_write_it_is_left_out(tmp_path):
    code = "import os\n\n\ndef place(name):\n    return os.path.join('a', name)\n\n\n" * 8
    texts = {
        "good.py": code,
        "test_x.py": code,
        "short.py": "def f(): pass\n",
        "broken.py": code + "def (",
        "wide.py": code + f"x = '{'a' * 300}'\n",
        "table.py": code + "def f():\n    return [\n" + "        1234567, 1234567,\n" * 80 + "    ]\n",
        "made.py": "# This file is generated.\n" + code,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert [name for name in texts if fit_to_read(name, tmp_path / name)] == ["good.py"]
    assert fit_to_read("_vendor/good.py", tmp_path / "good.py") is None
