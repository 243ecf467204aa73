"""Older files: each format is read without running it, and the repo made of it adds what the source's own code
adds."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from iti_llama.toolkit.convert.unpickle import LegacyError, read_pickle


def dump(content, path, protocol=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return path


class Bad:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def raw(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


def short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


MARK, EMPTY = b"(", b")"


STUB = short("sklearn.linear_model") + short("LogisticRegression") + b"\x93"


DTYPE = short("numpy") + short("dtype") + b"\x93"


@pytest.mark.parametrize(
    "content,said",
    [
        (lambda ran: pickle.dumps(Bad(os.system, f"touch {ran}")), "names posix.system"),
        (lambda ran: pickle.dumps(Bad(eval, f"open('{ran}', 'w')")), "names builtins.eval"),
        (lambda ran: pickle.dumps({"directions": [Bad(Bad, Bad(os.system, f"touch {ran}"))]}), "names"),
        (pickle.dumps(Bad(np.fromfile, "/etc/hostname")), "names"),
        (lambda ran: f"cos\nsystem\n(S'touch {ran}'\ntR.".encode(), "names os.system"),
        (lambda ran: f"(S'touch {ran}'\nios\nsystem\n.".encode(), "uses INST"),
        (raw(short("builtins"), short("exec"), b"\x93", short("1"), b"\x85R"), "names builtins.exec"),
        (raw(short("numpy"), short("load"), b"\x93", short("x"), b"\x85R"), "names numpy.load"),
        (raw(short("numpy"), short("fromfile"), b"\x93"), "names numpy.fromfile"),
        (raw(short("numpy.f2py"), short("crackfortran.myeval"), b"\x93"), "names numpy.f2py"),
        (raw(short("sklearn.utils"), short("os.system"), b"\x93"), "names sklearn.utils.os.system"),
        # a stub abused as a callable, called, and given a state that would make it one
        (raw(STUB, short("x"), b"\x85R", short("y"), b"\x85R"), "cannot be read"),
        (raw(STUB, b"}", short("__call__"), DTYPE, b"sb"), "cannot be read"),
        (raw(STUB, b"N}", short("__new__"), DTYPE, b"s\x86b"), "cannot be read"),
        # memo tricks: an index that asks for gigabytes, a list that holds itself
        (raw(b"N", b"r" + (1 << 31).to_bytes(4, "little")), "puts a memo"),
        (raw(b"]\x94", b"h\x00", b"a"), "holds itself"),
        # 10 GB declared, eight bytes given
        (
            raw(
                short("numpy.core.multiarray"), short("_reconstruct"), b"\x93",
                short("numpy"), short("ndarray"), b"\x93", b"K\x00\x85", b"C\x01b", b"\x87R",
                MARK, b"K\x01", b"\x8a\x05\x00\xe4\x0bT\x02", b"\x85", DTYPE, short("f8"), b"\x89\x88\x87R",
                MARK, b"K\x03", short("<"), b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
                b"\x89", b"C\x08" + bytes(8), b"tb",
            ),
            "10000000000",
        ),
        (
            raw(
                short("numpy.core.multiarray"), short("_reconstruct"), b"\x93",
                DTYPE, b"K\x00\x85", b"C\x01b", b"\x87R",
            ),
            "not an array",
        ),
        (raw(short("numpy"), short("ndarray"), b"\x93", b"\x8a\x05\x00\xe4\x0bT\x02", b"\x85\x85R"), "ndarray"),
        (pickle.dumps(np.array([object()], dtype=object)), "refused"),
        (b"\x80\x04\x95", "cannot be read"),
        (b"", "cannot be read"),
        (b"not a pickle", "refused|cannot be read"),
    ],
)  # fmt: skip
def test_a_pickle_that_asks_for_anything_else_is_refused_before_it_runs(content, said, tmp_path):
    ran = tmp_path / "ran"
    content = content(ran) if callable(content) else content
    path = tmp_path / "directions.pkl"
    path.write_bytes(content)
    with pytest.raises(LegacyError, match=said):
        read_pickle(path)
    assert not ran.exists()


def test_a_pickle_inside_a_zip_is_not_opened(tmp_path):
    path = tmp_path / "directions.pkl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Bad(os.system, f"touch {tmp_path / 'ran'}")))
    with pytest.raises(LegacyError, match="zip archive"):
        read_pickle(path)
    assert not (tmp_path / "ran").exists()


def test_what_is_shared_a_billion_times_is_read_once(tmp_path):
    value = [1.0]
    for _ in range(40):
        value = [value, value]
    found = read_pickle(dump(value, tmp_path / "x.pkl"))
    for _ in range(40):
        assert len(found) == 2
        found = found[1]
    assert found == [1.0]


def test_arrays_of_every_layout_come_back_as_they_were(tmp_path):
    arrays = [np.arange(6, dtype=dtype).reshape(2, 3) for dtype in ("<f2", "<f4", ">f8", "<i8", "u1")] + [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.float16(0.25),
        np.int64(7),
        np.zeros((0, 3)),
    ]
    for protocol in (2, 3, 4):
        for array, found in zip(arrays, read_pickle(dump(arrays, tmp_path / "x.pkl", protocol)), strict=True):
            np.testing.assert_array_equal(found, array)
