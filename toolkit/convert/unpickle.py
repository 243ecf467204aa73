"""Read the files of older ITI code, even pickles, without running anything that they ask for.

The unpickler builds numbers, texts, plain containers, and inert descriptions of NumPy arrays, scalars and dtypes,
which are checked and turned into arrays afterwards. scikit-learn models become inert stubs. Any other global is
refused by name before anything is built. No function of NumPy is called with values from a file.
"""

import io
import math
import pickle
import pickletools
import re
import reprlib
from pathlib import Path

import numpy as np


LARGEST = 1 << 28
"""Most bytes of a pickle, and of an array in it."""

MOST_CONTAINERS = 1_000_000
"""Most lists, dictionaries, sets, tuples and memos of a pickle: a byte of the file can ask for 500 of memory."""

LARGEST_INTEGER = 1 << 53
LARGEST_IN_KEY = 1 << 31
"""The largest integer of either sign, anywhere and in a key. Multiples of 2**61 - 1 share one hash, and so do pairs
chosen for it: as keys they cost the square of their number."""

MOST_ARGUMENTS = 8
"""Most arguments of a call, and most dimensions of an array."""

_CONTAINERS = frozenset(
    ["EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "EMPTY_TUPLE", "LIST", "DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"]
    + ["FROZENSET", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"]
)


_ARRAYS = {f"numpy.{core}.multiarray" for core in ("core", "_core")}


_OPCODES = frozenset(
    [
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "POP",
        "POP_MARK",
        "DUP",
        "MEMOIZE",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "GET",
        "BINGET",
        "LONG_BINGET",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "EMPTY_LIST",
        "APPEND",
        "APPENDS",
        "LIST",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "EMPTY_SET",
        "ADDITEMS",
        "FROZENSET",
        "GLOBAL",
        "STACK_GLOBAL",
        "REDUCE",
        "NEWOBJ",
        "BUILD",
    ]
)


class LegacyError(ValueError):
    """A file of older code that cannot be read, or is refused. The message names the file and the reason."""


class _Frozen(type):
    """Classes that a pickle cannot change."""

    def __setattr__(cls, name, value):
        raise pickle.UnpicklingError(f"sets {name} of a class")


class _Dtype(metaclass=_Frozen):
    __slots__ = ("code", "order")

    def __init__(self, code="", *_):
        self.code, self.order = code, "="

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("holds a dtype that is not of numbers")
        self.order = state[1]

    def real(self) -> np.dtype:
        if not isinstance(self.code, str) or not re.fullmatch(r"(f[248]|i[1248]|u[1248]|b1)", self.code):
            raise pickle.UnpicklingError(f"holds a dtype {reprlib.repr(self.code)}; expected numbers")
        return np.dtype(self.code if self.order in "|=" else self.order + self.code)


class _Array(metaclass=_Frozen):
    __slots__ = ("state",)

    def __init__(self):
        self.state = None

    def __setstate__(self, state):
        self.state = state

    def real(self) -> np.ndarray:
        try:
            _, shape, dtype, fortran, data = self.state
            if len(shape) > MOST_ARGUMENTS:
                raise pickle.UnpicklingError(f"holds an array of {len(shape)} dimensions")
            dtype, shape = dtype.real(), tuple(int(size) for size in shape)
        except (TypeError, ValueError, AttributeError):
            raise pickle.UnpicklingError("holds an array that cannot be read") from None
        size = math.prod(shape) * dtype.itemsize
        if any(length < 0 for length in shape) or not isinstance(data, bytes) or len(data) != size or size > LARGEST:
            found = len(data) if isinstance(data, bytes) else "no"
            raise pickle.UnpicklingError(f"holds an array of shape {shape} with {found} bytes; expected {size}")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


class _Scalar(metaclass=_Frozen):
    __slots__ = ("data", "dtype")

    def __init__(self, dtype=None, data=b""):
        self.dtype, self.data = dtype, data

    def __setstate__(self, state):
        raise pickle.UnpicklingError("changes a number")

    def real(self) -> float | int:
        if not isinstance(self.dtype, _Dtype) or not isinstance(self.data, bytes):
            raise pickle.UnpicklingError("holds a number that cannot be read")
        dtype = self.dtype.real()
        if len(self.data) != dtype.itemsize:
            raise pickle.UnpicklingError("holds a number of a wrong size")
        return np.frombuffer(self.data, dtype)[0].item()


class Stub(metaclass=_Frozen):
    """Stands for a scikit-learn model; holds nothing."""

    __slots__ = ()

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def real(self) -> "Stub":
        return self


class _Ndarray(metaclass=_Frozen):
    """The word `ndarray`, as an argument. Calling it is refused."""

    def __new__(cls, *args, **kwargs):
        raise pickle.UnpicklingError("calls numpy.ndarray")


class _Reconstruct(metaclass=_Frozen):
    """`_reconstruct(ndarray, (0,), b"b")`: an array whose content comes later. The shape it names is not made."""

    def __new__(cls, kind=None, shape=None, code=None):
        if kind is not _Ndarray:
            raise pickle.UnpicklingError("reconstructs something that is not an array")
        return _Array()


class _Encode(metaclass=_Frozen):
    """`_codecs.encode(text, "latin1")`, and `bytes()`: how protocols 0 to 2 write bytes."""

    def __new__(cls, text="", encoding="latin1"):
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("encodes something that is not bytes")
        return text.encode("latin1")


class _Unpickler(pickle._Unpickler):
    """The unpickler written in Python, not the one in C: here a key can be checked before it is hashed. The hash of a
    tuple whose parts are shared costs twice as much with every level; in a file of numbers the keys are texts and
    pairs of numbers."""

    dispatch = dict(pickle._Unpickler.dispatch)
    encoded = 0

    def find_class(self, module, name):
        if module in _ARRAYS and name in ("_reconstruct", "scalar"):
            return _Reconstruct if name == "_reconstruct" else _Scalar
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Ndarray if name == "ndarray" else _Dtype
        if (module, name) in (("_codecs", "encode"), ("builtins", "bytes"), ("__builtin__", "bytes")):
            return _Encode
        if module.split(".")[0] == "sklearn" and re.fullmatch(r"\w+", name):
            return Stub
        raise pickle.UnpicklingError(f"names {module}.{name}")

    def load_reduce(self):
        arguments = self.stack[-1]
        if not isinstance(arguments, tuple) or len(arguments) > MOST_ARGUMENTS:
            raise pickle.UnpicklingError(f"calls something with more than {MOST_ARGUMENTS} arguments")
        super().load_reduce()
        if isinstance(self.stack[-1], bytes):  # a file may encode one text again and again
            self.encoded += len(self.stack[-1])
            if self.encoded > LARGEST:
                raise pickle.UnpicklingError(f"encodes more than {LARGEST:,} bytes")

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self):
        if not isinstance(self.stack[-1], tuple) or len(self.stack[-1]) > MOST_ARGUMENTS:
            raise pickle.UnpicklingError(f"makes something of more than {MOST_ARGUMENTS} arguments")
        super().load_newobj()

    dispatch[pickle.NEWOBJ[0]] = load_newobj


def _is_plain_key(key: object) -> bool:
    """Whether a key is a text, a number, or a tuple of texts and at most two whole numbers."""
    if not isinstance(key, tuple):
        key = key.real() if isinstance(key, _Scalar) else key
        return isinstance(key, (str, bytes, float, type(None))) or _is_index(key)
    numbers = [part for part in key[:4] if not isinstance(part, (str, bytes, type(None)))]
    return len(key) <= 4 and len(numbers) <= 2 and all(map(_is_index, numbers))


def _is_index(number: object) -> bool:
    number = number.real() if isinstance(number, _Scalar) else number
    return isinstance(number, int) and abs(number) <= LARGEST_IN_KEY


def _with_plain_keys(load, many: bool, pairs: bool):
    """An opcode that checks keys and puts them into a dictionary or a set."""

    def checked(self) -> None:
        # Where a mark was set, `stack` holds what came after it; a single key and its value lie on top.
        keys = (self.stack[::2] if pairs else self.stack) if many else self.stack[-2:-1]
        if not all(map(_is_plain_key, keys)):
            raise pickle.UnpicklingError("has a key that is neither a text nor a few numbers of usual size")
        load(self)

    return checked


for _opcode, _many, _pairs in (
    (pickle.SETITEM, False, True),
    (pickle.SETITEMS, True, True),
    (pickle.DICT, True, True),
    (pickle.ADDITEMS, True, False),
    (pickle.FROZENSET, True, False),
):
    _Unpickler.dispatch[_opcode[0]] = _with_plain_keys(_Unpickler.dispatch[_opcode[0]], _many, _pairs)


def read_pickle(path: Path) -> object:
    """The content of a pickle: numbers, texts, containers, NumPy arrays, and stubs.

    Raises:
        LegacyError: if it names anything else, is cut off, is too large, or is not a pickle at all.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise LegacyError(f"{path}: {size:,} bytes; expected at most {LARGEST:,}")
    data = path.read_bytes()
    if data[:2] == b"PK":
        raise LegacyError(f"{path}: is a zip archive (torch.save, perhaps); expected a plain pickle. It is not opened")
    try:
        _check_opcodes(data)
        return _real(_Unpickler(io.BytesIO(data)).load())
    except pickle.UnpicklingError as error:
        raise LegacyError(f"{path}: refused: the pickle {error}. Nothing in it was run") from None
    except Exception as error:  # a pickle is a program, and a bad one can fail in any way
        raise LegacyError(f"{path}: cannot be read as a pickle ({type(error).__name__}: {str(error)[:200]})") from None


def _check_opcodes(data: bytes) -> None:
    """Refuse what no file of numbers needs: unknown opcodes, and memo indices and containers that ask for memory."""
    containers = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"uses {opcode.name}")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument) > count + 1:
            raise pickle.UnpicklingError(f"puts a memo at {argument}")
        if opcode.name in ("INT", "LONG", "LONG1", "LONG4") and abs(argument) > LARGEST_INTEGER:
            raise pickle.UnpicklingError(f"holds an integer of {argument.bit_length()} bits")
        containers += opcode.name in _CONTAINERS
        if containers > MOST_CONTAINERS:
            raise pickle.UnpicklingError(f"holds more than {MOST_CONTAINERS} lists, dictionaries, sets and memos")
        if opcode.name == "GLOBAL":
            _Unpickler(io.BytesIO()).find_class(*argument.split(" ", 1))


def _real(value: object, depth: int = 0, seen: dict[int, object] | None = None) -> object:
    """Turn descriptions into what they describe. A shared part is turned once; a part that holds itself is refused."""
    seen = {} if seen is None else seen
    if depth > 50:
        raise pickle.UnpicklingError("is nested too deeply, or holds itself")
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, (_Array, _Scalar, Stub)):
        result = value.real()
    elif isinstance(value, dict):
        result = {_real(k, depth + 1, seen): _real(v, depth + 1, seen) for k, v in value.items()}
    elif isinstance(value, (list, tuple, set, frozenset)):
        result = type(value)(_real(item, depth + 1, seen) for item in value)
    elif isinstance(value, (int, float, str, bytes, bool, type(None))):
        return value
    else:
        raise pickle.UnpicklingError(
            f"holds a {getattr(value, '__name__', type(value).__name__).strip('_')} that stands alone"
        )
    seen[id(value)] = result
    return result
