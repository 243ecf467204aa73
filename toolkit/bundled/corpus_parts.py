"""What a composed task is made of: where items come from, which are kept, what is made of each, and how people say it.

In words, `{k}` is a number, a letter or the name of a second argument, `{np}` a plural noun phrase ("even numbers"),
`{o}` an object ("each of them"). In code, `{x}` is the item and `{k}` the same as in the words, as Python.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Filter:
    """Which items are kept. slot: what `{k}` is, "" for nothing. adjectives stand before the noun; phrases after it,
    after "that are" or after "is"; verbs are (plural, singular), for "that ..." and alone; nouns replace the noun, (plural,
    singular). names: for the function's name."""

    key: str
    code: str
    keeps: Callable
    slot: str = ""
    adjectives: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    verbs: tuple[tuple[str, str], ...] = ()
    nouns: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Map:
    """What is made of an item. of: noun phrases of `{np}`; verbs: of `{o}`."""

    key: str
    code: str
    makes: Callable
    slot: str = ""
    of: tuple[str, ...] = ("{np}",)
    verbs: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Source:
    """What is iterated over. domain: of the group's name. iterable: code. items: the same, computed. nouns: (plural,
    singular); where: after the noun; given: what the argument is. arguments: their names. own_noun: whether an argument's
    name may be the noun ("prices"). hint: its type."""

    key: str
    domain: str
    iterable: str
    items: Callable
    nouns: tuple[tuple[str, str], ...]
    where: tuple[str, ...]
    given: tuple[str, ...]
    arguments: tuple[str, ...]
    filters: tuple[Filter, ...]
    maps: tuple[Map, ...]
    aggregates: tuple[str, ...]
    inputs: tuple[object, ...]
    hint: str
    own_noun: bool = False
    shared_inputs: Callable = lambda k: ()
    """Further inputs, in which `k` makes a difference."""


INTS = (
    Filter("even", "{x} % 2 == 0", lambda x, k: str(x)[-1] in "02468", "", ("even",),
           ("even", "divisible by two", "divisible by 2"), (), (("evens", "even"), ("even ones", "even one")),
           ("even", "evens")),
    Filter("odd", "{x} % 2 == 1", lambda x, k: str(x)[-1] in "13579", "", ("odd",),
           ("odd", "not even", "not divisible by 2"), (), (("odds", "odd"), ("odd ones", "odd one")), ("odd", "odds")),
    Filter("positive", "{x} > 0", lambda x, k: not x <= 0, "", ("positive",),
           ("positive", "greater than zero", "above zero", "greater than 0", "larger than zero", "over zero"), (),
           (("positives", "positive"),), ("positive", "positives", "pos")),
    Filter("negative", "{x} < 0", lambda x, k: not x >= 0, "", ("negative",),
           ("negative", "less than zero", "below zero", "smaller than 0", "under zero"), (),
           (("negatives", "negative"),), ("negative", "negatives", "neg")),
    Filter("zero", "{x} == 0", lambda x, k: not x, "", ("zero",), ("zero", "equal to zero", "equal to 0"), (),
           (("zeros", "zero"), ("zeroes", "zero")), ("zero", "zeros")),
    Filter("nonzero", "{x} != 0", lambda x, k: bool(x), "", ("nonzero", "non-zero"),
           ("not zero", "nonzero", "different from zero", "not equal to 0", "other than zero"), (), (),
           ("nonzero", "non_zero")),
    Filter("gt", "{x} > {k}", lambda x, k: x >= k + 1, "int", (),
           ("greater than {k}", "larger than {k}", "bigger than {k}", "above {k}", "over {k}", "more than {k}",
            "higher than {k}", "strictly greater than {k}"), (("exceed {k}", "exceeds {k}"),), (),
           ("above", "greater", "over", "big", "large", "high", "exceeding")),
    Filter("lt", "{x} < {k}", lambda x, k: x <= k - 1, "int", (),
           ("less than {k}", "smaller than {k}", "below {k}", "under {k}", "lower than {k}", "strictly less than {k}"),
           (), (), ("below", "less", "under", "small", "low", "smaller")),
    Filter("ge", "{x} >= {k}", lambda x, k: x > k - 1, "int", (),
           ("at least {k}", "greater than or equal to {k}", "not less than {k}", "no smaller than {k}", "{k} or more",
            "{k} or larger", "not below {k}"), (), (), ("at_least", "from", "not_below", "min")),
    Filter("le", "{x} <= {k}", lambda x, k: x < k + 1, "int", (),
           ("at most {k}", "less than or equal to {k}", "not greater than {k}", "no larger than {k}", "{k} or less",
            "no more than {k}", "not above {k}"), (), (), ("at_most", "up_to", "not_above", "max")),
    Filter("div", "{x} % {k} == 0", lambda x, k: x // k * k == x, "int", (),
           ("divisible by {k}", "multiples of {k}", "evenly divisible by {k}", "a multiple of {k}"),
           (("divide evenly by {k}", "divides evenly by {k}"),),
           (("multiples of {k}", "multiple of {k}"),), ("multiples", "divisible", "multiple", "divisible_by")),
    Filter("notdiv", "{x} % {k} != 0", lambda x, k: x // k * k != x, "int", (),
           ("not divisible by {k}", "not a multiple of {k}", "not evenly divisible by {k}"), (), (),
           ("not_divisible", "indivisible")),
    Filter("eq", "{x} == {k}", lambda x, k: x - k == 0, "int", (), ("equal to {k}", "exactly {k}"),
           (("equal {k}", "equals {k}"),), (("occurrences of {k}", "occurrence of {k}"),), ("equal", "occurrences", "same")),
    Filter("ne", "{x} != {k}", lambda x, k: x - k != 0, "int", (),
           ("different from {k}", "other than {k}", "not equal to {k}", "not {k}"), (("differ from {k}", "differs from {k}"),),
           (), ("other", "not_equal", "different", "without")),
    Filter("lastdigit", "abs({x}) % 10 == {k}", lambda x, k: str(x)[-1] == str(k), "digit", (),
           ("ending in {k}", "ending with {k}", "with last digit {k}"),
           (("end in {k}", "ends in {k}"), ("end with {k}", "ends with {k}"), ("have {k} as last digit", "has {k} as last digit")),
           (), ("ending", "ending_in", "last_digit")),
)  # fmt: skip
INT_MAPS = (
    Map("id", "{x}", lambda x, k: x),
    Map("square", "{x} * {x}", lambda x, k: x**2, "",
        ("squares of {np}", "squared {np}", "squares of all {np}", "square of each of {np}", "second powers of {np}"),
        ("square {o}",), ("squares", "squared", "square")),
    Map("cube", "{x} ** 3", lambda x, k: x * x * x, "",
        ("cubes of {np}", "cubed {np}", "cubes of all {np}", "third powers of {np}"), ("cube {o}",),
        ("cubes", "cubed", "cube")),
    Map("double", "2 * {x}", lambda x, k: x + x, "",
        ("doubles of {np}", "doubled {np}", "{np} times two", "{np} multiplied by two"),
        ("double {o}", "multiply {o} by two", "multiply {o} by 2"), ("doubled", "doubles", "twice")),
    Map("triple", "3 * {x}", lambda x, k: x + x + x, "", ("triples of {np}", "tripled {np}", "{np} times three"),
        ("triple {o}", "multiply {o} by three", "multiply {o} by 3"), ("tripled", "triples")),
    Map("half", "{x} // 2", lambda x, k: (x - x % 2) // 2, "",
        ("halves of {np}, rounded down", "halved {np}", "halves of {np}"),
        ("halve {o}", "halve {o}, rounding down"), ("halves", "halved", "half")),
    Map("negation", "-{x}", lambda x, k: 0 - x, "", ("negations of {np}", "negated {np}", "{np} with the sign flipped"),
        ("negate {o}", "flip the sign of {o}"), ("negated", "negations", "opposite")),
    Map("abs", "abs({x})", lambda x, k: x if x >= 0 else -x, "",
        ("absolute values of {np}", "magnitudes of {np}", "{np} without their sign"),
        ("take the absolute value of {o}", "drop the sign of {o}"), ("absolute", "abs", "magnitudes")),
    Map("times", "{x} * {k}", lambda x, k: sum([x] * k), "factor",
        ("{np} times {k}", "{np} multiplied by {k}", "{np} scaled by {k}"),
        ("multiply {o} by {k}", "scale {o} by {k}"), ("times", "scaled", "multiplied", "scale")),
    Map("plus", "{x} + {k}", lambda x, k: x - -k, "int",
        ("{np} plus {k}", "{np} increased by {k}", "{np} with {k} added"), ("add {k} to {o}", "increase {o} by {k}"),
        ("plus", "increased", "raised", "shifted")),
    Map("minus", "{x} - {k}", lambda x, k: x + -k, "int",
        ("{np} minus {k}", "{np} decreased by {k}", "{np} reduced by {k}"),
        ("subtract {k} from {o}", "reduce {o} by {k}", "take {k} away from {o}"), ("minus", "reduced", "lowered")),
    Map("mod", "{x} % {k}", lambda x, k: x - k * (x // k), "factor",
        ("remainders of {np} divided by {k}", "{np} modulo {k}", "remainders of {np} modulo {k}", "{np} mod {k}"),
        ("take {o} modulo {k}",), ("remainders", "modulo", "mod")),
    Map("digit", "abs({x}) % 10", lambda x, k: int(str(x)[-1]), "", ("last digits of {np}", "final digits of {np}"),
        ("take the last digit of {o}",), ("last_digits", "digits")),
    Map("digits", "len(str(abs({x})))", lambda x, k: len(str(x).lstrip("-")), "",
        ("digit counts of {np}", "numbers of digits of {np}"), ("count the digits of {o}",), ("digit_counts", "widths")),
    Map("text", "str({x})", lambda x, k: f"{x:d}", "", ("{np} as strings", "{np} as text", "{np} converted to strings"),
        ("convert {o} to a string", "turn {o} into a string"), ("strings", "as_strings", "texts")),
)  # fmt: skip

WORDS = (
    Filter("longer", "len({x}) > {k}", lambda x, k: len(x) >= k + 1, "length", (),
           ("longer than {k} letters", "longer than {k} characters", "longer than {k}", "with more than {k} letters",
            "with more than {k} characters", "of length greater than {k}", "with a length above {k}"),
           (("have more than {k} letters", "has more than {k} letters"),), (), ("long", "longer", "longer_than")),
    Filter("shorter", "len({x}) < {k}", lambda x, k: len(x) <= k - 1, "length", (),
           ("shorter than {k} letters", "shorter than {k} characters", "shorter than {k}", "with fewer than {k} letters",
            "with less than {k} characters", "of length less than {k}"),
           (("have fewer than {k} letters", "has fewer than {k} letters"),), (), ("short", "shorter", "shorter_than")),
    Filter("atleast", "len({x}) >= {k}", lambda x, k: len(x) > k - 1, "length", (),
           ("with at least {k} letters", "with at least {k} characters", "with {k} or more letters", "of length at least {k}"),
           (("have at least {k} letters", "has at least {k} letters"),), (), ("long", "at_least")),
    Filter("exactly", "len({x}) == {k}", lambda x, k: len(x) - k == 0, "length", (),
           ("with exactly {k} letters", "of length {k}", "{k} letters long", "{k} characters long", "with {k} letters"),
           (("have exactly {k} letters", "has exactly {k} letters"),), (), ("exact", "of_length", "with_length")),
    Filter("evenlen", "len({x}) % 2 == 0", lambda x, k: len(x) in range(0, 99, 2), "", ("even-length",),
           ("of even length", "with an even number of letters", "with an even length"), (), (), ("even_length", "even_len")),
    Filter("oddlen", "len({x}) % 2 == 1", lambda x, k: len(x) in range(1, 99, 2), "", ("odd-length",),
           ("of odd length", "with an odd number of letters", "with an odd length"), (), (), ("odd_length", "odd_len")),
    Filter("starts", "{x}.startswith({k})", lambda x, k: x[:1] == k, "letter", (),
           ("starting with {k}", "beginning with {k}"),
           (("start with {k}", "starts with {k}"), ("begin with {k}", "begins with {k}")), (),
           ("starting_with", "starts_with", "beginning", "starting")),
    Filter("ends", "{x}.endswith({k})", lambda x, k: x[-1:] == k, "letter", (), ("ending with {k}", "ending in {k}"),
           (("end with {k}", "ends with {k}"), ("end in {k}", "ends in {k}")), (), ("ending_with", "ends_with", "ending")),
    Filter("has", "{k} in {x}", lambda x, k: x.count(k) > 0, "letter", (),
           ("containing {k}", "with {k} in them", "including {k}"),
           (("contain {k}", "contains {k}"), ("include {k}", "includes {k}"), ("have {k} in them", "has {k} in it")), (),
           ("containing", "with_letter", "having", "contains")),
    Filter("hasnot", "{k} not in {x}", lambda x, k: x.count(k) == 0, "letter", (),
           ("without {k}", "not containing {k}", "lacking {k}"), (("do not contain {k}", "does not contain {k}"),), (),
           ("without", "lacking", "without_letter")),
    Filter("vowelstart", '{x}.startswith(("a", "e", "i", "o", "u"))', lambda x, k: x[:1] in set("aeiou"), "", (),
           ("starting with a vowel", "beginning with a vowel"),
           (("start with a vowel", "starts with a vowel"), ("begin with a vowel", "begins with a vowel")), (),
           ("vowel_start", "vowel_words", "starting_with_vowel")),
    Filter("palindrome", "{x} == {x}[::-1]", lambda x, k: list(x) == list(reversed(x)), "", ("palindromic",),
           ("equal to their reverse", "palindromes", "palindromic"),
           (("read the same backwards", "reads the same backwards"), ("read the same both ways", "reads the same both ways")),
           (("palindromes", "palindrome"),), ("palindromes", "palindrome")),
    Filter("upper", "{x}.isupper()", lambda x, k: x.isupper(), "", ("uppercase", "upper-case"),
           ("in capitals", "in upper case", "all uppercase", "written in capital letters", "uppercase"), (), (),
           ("upper", "uppercase", "capitals")),
    Filter("lower", "{x}.islower()", lambda x, k: x.islower(), "", ("lowercase", "lower-case"),
           ("in lower case", "all lowercase", "written in small letters", "lowercase"), (), (), ("lower", "lowercase")),
    Filter("capital", "{x}[:1].isupper()", lambda x, k: x[:1].isupper(), "", ("capitalised", "capitalized"),
           ("starting with a capital letter", "beginning with a capital", "capitalised", "starting with a capital"),
           (("start with a capital letter", "starts with a capital letter"),), (), ("capitalized", "capitalised", "proper")),
    Filter("alpha", "{x}.isalpha()", lambda x, k: x.isalpha(), "", ("alphabetic",),
           ("made of letters", "made up of letters only", "consisting only of letters", "purely alphabetic"),
           (("contain only letters", "contains only letters"),), (), ("alphabetic", "alpha")),
    Filter("digits", "{x}.isdigit()", lambda x, k: x.isdigit(), "", ("numeric",),
           ("made of digits", "consisting only of digits", "numeric", "made up of digits only"),
           (("contain only digits", "contains only digits"),), (), ("numeric", "digits")),
    Filter("nonempty", '{x} != ""', lambda x, k: len(x) > 0, "", ("nonempty", "non-empty"), ("not empty", "nonempty"), (), (),
           ("nonempty", "non_empty", "filled")),
    Filter("empty", '{x} == ""', lambda x, k: len(x) == 0, "", ("empty",), ("empty",), (), (), ("empty", "blank")),
    Filter("eq", "{x} == {k}", lambda x, k: x == k, "string argument", (), ("equal to {k}", "the same as {k}"),
           (("equal {k}", "equals {k}"), ("match {k}", "matches {k}")), (("occurrences of {k}", "occurrence of {k}"),),
           ("equal", "matching", "occurrences", "same")),
)  # fmt: skip
WORD_MAPS = (
    Map("id", "{x}", lambda x, k: x),
    Map("upper", "{x}.upper()", lambda x, k: x.upper(), "",
        ("{np} in upper case", "{np} in capitals", "uppercased {np}", "{np} in uppercase", "upper-case forms of {np}"),
        ("uppercase {o}", "convert {o} to upper case", "put {o} in capitals", "turn {o} into upper case"),
        ("upper", "uppercase", "shouted", "uppercased")),
    Map("lower", "{x}.lower()", lambda x, k: x.lower(), "",
        ("{np} in lower case", "lowercased {np}", "{np} in lowercase", "{np} in small letters"),
        ("lowercase {o}", "convert {o} to lower case", "turn {o} into lower case"), ("lower", "lowercase", "lowercased")),
    Map("capital", "{x}.capitalize()", lambda x, k: x[:1].upper() + x[1:].lower(), "",
        ("capitalised {np}", "capitalized {np}", "{np} with a capital first letter"), ("capitalise {o}", "capitalize {o}"),
        ("capitalized", "capitalised", "title")),
    Map("reversed", "{x}[::-1]", lambda x, k: "".join(reversed(x)), "",
        ("reversals of {np}", "reversed {np}", "{np} spelled backwards", "{np} written backwards", "{np} reversed"),
        ("reverse {o}", "spell {o} backwards"), ("reversed", "backwards", "flipped")),
    Map("length", "len({x})", lambda x, k: sum(1 for _ in x), "",
        ("lengths of {np}", "length of each of {np}", "sizes of {np}", "letter counts of {np}"),
        ("take the length of {o}", "measure {o}", "get the length of {o}"), ("lengths", "sizes", "length")),
    Map("twice", "{x} * 2", lambda x, k: x + x, "", ("doubled {np}", "{np} repeated twice", "{np} written twice"),
        ("double {o}", "repeat {o} twice"), ("doubled", "twice", "repeated")),
    Map("strip", "{x}.strip()", lambda x, k: x.strip(), "",
        ("stripped {np}", "{np} without surrounding spaces", "trimmed {np}", "{np} with the spaces around them removed"),
        ("strip {o}", "trim {o}", "remove the spaces around {o}"), ("stripped", "trimmed", "clean")),
    Map("head", "{x}[:1]", lambda x, k: "".join(list(x)[:1]), "",
        ("first letters of {np}", "initials of {np}", "first characters of {np}", "first letter of each of {np}"),
        ("take the first letter of {o}",), ("initials", "first_letters", "heads")),
    Map("tail", "{x}[-1:]", lambda x, k: "".join(list(x)[-1:]), "",
        ("last letters of {np}", "final letters of {np}", "last characters of {np}"), ("take the last letter of {o}",),
        ("last_letters", "endings", "tails")),
    Map("plus", "{x} + {k}", lambda x, k: "".join([x, k]), "letter", ("{np} followed by {k}", "{np} with {k} added at the end"),
        ("add {k} to the end of {o}", "append {k} to {o}"), ("suffixed", "extended")),
)  # fmt: skip

CHARS = (
    Filter("vowel", '{x} in "aeiou"', lambda x, k: x in set("aeiou"), "", (), ("vowels", "a vowel"), (),
           (("vowels", "vowel"),), ("vowels", "vowel")),
    Filter("consonant", '{x}.isalpha() and {x} not in "aeiou"', lambda x, k: x.isalpha() and x not in set("aeiou"), "", (),
           ("consonants", "a consonant"), (), (("consonants", "consonant"),), ("consonants", "consonant")),
    Filter("notvowel", '{x} not in "aeiou"', lambda x, k: x not in set("aeiou"), "", ("non-vowel",), ("not vowels", "not a vowel"), (),
           (), ("no_vowels", "without_vowels", "non_vowels")),
    Filter("digit", "{x}.isdigit()", lambda x, k: x.isdigit(), "", (), ("digits", "numeric", "a digit"), (),
           (("digits", "digit"), ("numerals", "numeral")), ("digits", "digit")),
    Filter("notdigit", "not {x}.isdigit()", lambda x, k: not x.isdigit(), "", ("non-digit",), ("not digits", "not a digit"),
           (), (), ("non_digits", "without_digits")),
    Filter("letter", "{x}.isalpha()", lambda x, k: x.isalpha(), "", ("alphabetic",), ("letters", "alphabetic", "a letter"), (),
           (("letters", "letter"),), ("letters", "letter", "alpha")),
    Filter("upper", "{x}.isupper()", lambda x, k: x.isupper(), "", ("uppercase",),
           ("capitals", "uppercase", "in upper case", "capital letters"), (),
           (("capitals", "capital"), ("capital letters", "capital letter"), ("uppercase letters", "uppercase letter"),
            ("upper-case letters", "upper-case letter")), ("upper", "capitals", "uppercase")),
    Filter("lower", "{x}.islower()", lambda x, k: x.islower(), "", ("lowercase",), ("lowercase", "in lower case", "small letters"),
           (), (("lowercase letters", "lowercase letter"), ("small letters", "small letter")), ("lower", "lowercase")),
    Filter("space", '{x} == " "', lambda x, k: x == chr(32), "", (), ("spaces", "a space", "blank"), (),
           (("spaces", "space"), ("blanks", "blank")), ("spaces", "blanks")),
    Filter("notspace", '{x} != " "', lambda x, k: not x == chr(32), "", ("non-space",), ("not spaces", "not blank", "not a space"),
           (), (), ("no_spaces", "without_spaces", "non_space")),
    Filter("eq", "{x} == {k}", lambda x, k: x == k, "letter", (), ("equal to {k}",), (("equal {k}", "equals {k}"),),
           (("occurrences of {k}", "occurrence of {k}"),), ("occurrences", "letter", "times")),
    Filter("ne", "{x} != {k}", lambda x, k: not x == k, "letter", (), ("different from {k}", "other than {k}", "not equal to {k}"),
           (), (), ("without", "other_than", "except")),
    Filter("in", "{x} in {k}", lambda x, k: k.count(x) > 0, "string argument", (), ("found in {k}",),
           (("occur in {k}", "occurs in {k}"), ("also appear in {k}", "also appears in {k}"), ("are in {k}", "is in {k}")), (),
           ("common", "shared", "found_in")),
)  # fmt: skip
CHAR_MAPS = (
    Map("id", "{x}", lambda x, k: x),
    Map("upper", "{x}.upper()", lambda x, k: x.upper(), "", ("{np} in upper case", "uppercased {np}", "{np} in capitals"),
        ("uppercase {o}", "convert {o} to upper case"), ("upper", "uppercase")),
    Map("lower", "{x}.lower()", lambda x, k: x.lower(), "", ("{np} in lower case", "lowercased {np}", "{np} in lowercase"),
        ("lowercase {o}", "convert {o} to lower case"), ("lower", "lowercase")),
    Map("twice", "{x} * 2", lambda x, k: x + x, "", ("doubled {np}", "{np} repeated twice", "{np} written twice"),
        ("double {o}", "repeat {o} twice"), ("doubled", "twice")),
    Map("code", "ord({x})", lambda x, k: x.encode("utf-32-le")[0], "", ("codes of {np}", "character codes of {np}", "code points of {np}"),
        ("take the code of {o}",), ("codes", "code_points")),
)  # fmt: skip

NUMERIC = ("sum", "product", "count", "max", "min", "list", "set", "distinct", "sorted", "descending", "first", "any", "all", "none", "dict")
TEXTUAL = ("count", "list", "set", "distinct", "sorted", "descending", "first", "join", "any", "all", "none", "dict")
WORDY = (*TEXTUAL, "longest", "shortest")
NUMBERS = (("numbers", "number"), ("integers", "integer"), ("values", "value"), ("ints", "int"), ("elements", "element"),
           ("items", "item"), ("entries", "entry"))  # fmt: skip
STRINGS = (("words", "word"), ("strings", "string"), ("names", "name"), ("entries", "entry"), ("items", "item"))

LISTS = (
    *("nums", "numbers", "values", "xs", "data", "items", "arr", "seq", "ints", "integers", "lst", "numbers_list", "series", "vals"),
    *("scores", "prices", "ages", "temperatures", "temps", "readings", "grades", "marks", "points", "weights", "lengths"),
    *("heights", "costs", "sizes", "counts", "amounts", "totals", "distances", "times", "years", "days", "salaries"),
    *("levels", "samples", "measurements", "results", "votes", "sales", "orders", "balances", "speeds", "depths", "bills"),
    *("rates", "quantities", "ratings", "steps", "hours", "minutes", "payments", "deposits", "goals", "laps", "a", "v"),
)
TEXTS = (
    *("words", "names", "strings", "lines", "tokens", "titles", "cities", "fruits", "labels", "tags", "keys", "texts", "ws"),
    *("countries", "colors", "colours", "animals", "books", "items", "entries", "files", "filenames", "terms", "phrases"),
    *("sentences", "strs", "vocabulary", "people", "students", "users", "emails", "codes", "parts", "pieces", "messages", "ids"),
    *("products", "months", "towns", "songs", "players", "teams", "foods", "pets", "plants", "guests", "languages", "roles"),
)
SINGLE = ("text", "s", "word", "string", "sentence", "phrase", "line", "message", "name", "title", "txt", "letters", "password",
          "content", "paragraph", "note", "label", "code", "st", "source", "comment", "query")  # fmt: skip
COUNTS = ("n", "limit", "top", "number", "k", "m", "upper", "end", "maximum", "bound", "size", "stop", "num", "last", "count")
DICTS = ("prices", "scores", "stock", "ages", "inventory", "grades", "d", "mapping", "table", "data", "votes", "salaries", "counts",
         "points", "budget", "costs", "balances", "totals", "lookup", "weights")  # fmt: skip
SECOND = {
    "int": ("limit", "threshold", "k", "cutoff", "bound", "target", "m", "value", "minimum", "maximum", "level", "t", "y"),
    "factor": ("k", "factor", "m", "divisor", "step", "base", "d", "f"),
    "length": ("k", "length", "n", "size", "limit", "width", "m"),
    "letter": ("letter", "c", "char", "ch", "character", "symbol", "prefix", "x"),
    "string argument": ("target", "other", "allowed", "wanted", "t", "chars", "query", "key"),
}

INT_INPUTS = ([3, -1, 4, 10, 5, 9, 2, 6], [], [7, 7, 15, -20, 0, 1, 8], [12, 21, 35, 70], [-3, -6, -9], [2], [11, 4, 6, 100])
WORD_INPUTS = (["apple", "level", "sea", "Ants", "eve"], [], ["as", "a", "trees", "banana", ""], ["OK", "x1", " pad ", "noon", "noon"],
               ["glasses", "stones", "bees"], ["abba", "abcba", "42"])  # fmt: skip


def _near(k: object) -> tuple:
    return ([k - 1, k, k + 1, 2 * k, 3 * k, -k, k + 10, k],) if isinstance(k, int) else ()


def _spelled(k: object) -> tuple:
    if isinstance(k, int):
        return (["x" * (k - 1), "y" * k, "z" * (k + 1), "w" * (k + 2)],)
    return ([f"{k}an", f"to{k}", f"m{k}n", k, "xyz", "q"],) if isinstance(k, str) else ()


SOURCES = (
    Source("ints", "ints", "{arg}", lambda value: value, NUMBERS,
           ("in {arg}", "in the list", "of the list", "in a list", "in the list {arg}", "of {arg}", "from {arg}", "in the given list", ""),
           ("a list of numbers", "a list of integers", "a list of ints", "a list of numbers {arg}", "a list {arg} of integers",
            "the list {arg}", "the numbers in {arg}", "some numbers", "a sequence of numbers", "{arg}, a list of numbers"),
           LISTS, INTS, INT_MAPS, NUMERIC, INT_INPUTS, "list[int]", True, _near),
    Source("range", "ints", "range(1, {arg} + 1)", lambda value: list(range(1, value + 1)), (("numbers", "number"), ("integers", "integer")),
           ("from 1 to {arg}", "up to {arg}", "between 1 and {arg}", "from 1 through {arg}", "from one to {arg}", "from 1 up to {arg}",
            "up to and including {arg}", "from 1 to {arg} inclusive"),
           ("a number {arg}", "a positive integer {arg}", "an upper limit {arg}"),
           COUNTS, INTS, INT_MAPS, NUMERIC, (0, 1, 2, 4, 9, 15), "int"),
    Source("below", "ints", "range({arg})", lambda value: list(range(value)), (("numbers", "number"), ("integers", "integer")),
           ("below {arg}", "from 0 up to but not including {arg}", "less than {arg}", "smaller than {arg}", "under {arg}",
            "from zero to {arg} minus one"),
           ("a number {arg}", "a limit {arg}"), COUNTS, INTS, INT_MAPS, NUMERIC, (0, 1, 2, 4, 9, 15), "int"),
    Source("digits", "digits", "map(int, str({arg}))", lambda value: [int(c) for c in f"{value}"], (("digits", "digit"),),
           ("of {arg}", "in {arg}", "of a number", "of the number {arg}", "of an integer", "of the given number"),
           ("a number {arg}", "a non-negative integer {arg}", "an integer {arg}"),
           COUNTS[:1] + ("number", "num", "value", "x", "integer", "year", "code"), INTS[:2] + INTS[4:8] + INTS[10:14], INT_MAPS[:4],
           ("sum", "product", "count", "max", "min", "list", "set", "distinct", "sorted", "descending", "any", "all"),
           (0, 7, 10, 44, 123, 905, 86420, 1999, 55555), "int"),
    Source("values", "ints", "{arg}.values()", lambda value: list(value.values()), (("values", "value"),),
           ("in {arg}", "of {arg}", "in the dictionary", "of a dictionary", "of the dict {arg}", "in the dictionary {arg}"),
           ("a dictionary {arg}", "a dict of numbers {arg}", "a dictionary of names to numbers"), DICTS, INTS, INT_MAPS, NUMERIC[:-1],
           ({}, {"a": 3, "b": -4}, {"x": 10, "y": 10, "zed": 7, "w": 0}, {"k": 5}, {"p": 12, "q": 100, "r": 6}), "dict[str, int]", False,
           lambda k: tuple(dict(zip("abcdefgh", row, strict=True)) for row in _near(k))),
    Source("words", "words", "{arg}", lambda value: value, STRINGS,
           ("in {arg}", "in the list", "of the list", "in a list", "in the list {arg}", "of {arg}", "from {arg}", "in the given list", ""),
           ("a list of words", "a list of strings", "a list of names", "a list of strings {arg}", "the list {arg}", "some words",
            "a list {arg} of words", "{arg}, a list of strings"),
           TEXTS, WORDS, WORD_MAPS, WORDY, WORD_INPUTS, "list[str]", True, _spelled),
    Source("keys", "words", "{arg}", lambda value: list(value), (("keys", "key"),),
           ("in {arg}", "of {arg}", "of a dictionary", "in the dictionary", "of the dict {arg}"),
           ("a dictionary {arg}", "a dict {arg}"), DICTS, WORDS, WORD_MAPS, WORDY[:-3],
           ({}, {"apple": 1, "level": 2, "sea": 3}, {"as": 1, "OK": 2, "trees": 3}, {"noon": 0, "x1": 5}), "dict[str, int]", False,
           lambda k: tuple(dict.fromkeys(row, 1) for row in _spelled(k))),
    Source("split", "words", "{arg}.split()", lambda value: [part for part in value.replace("\t", " ").split(" ") if part], (("words", "word"),),
           ("in {arg}", "of the sentence", "in the text", "in a sentence", "of {arg}", "in the sentence {arg}"),
           ("a sentence {arg}", "a text {arg}", "a string of words", "a sentence"), ("sentence", "text", "line", "phrase", "s", "message"),
           WORDS[:17], WORD_MAPS[:7] + WORD_MAPS[8:], WORDY, ("", "the apple of level sea", "Ants eat as a banana", "OK x1 noon noon 42"), "str", False,
           lambda k: tuple(" ".join(part for part in row if part) for row in _spelled(k))),
    Source("chars", "chars", "{arg}", lambda value: value, (("characters", "character"), ("chars", "char"), ("characters", "character")),
           ("in {arg}", "of {arg}", "in a string", "in the string", "of the text", "in the given string", "of a text", "in the string {arg}"),
           ("a string", "a string {arg}", "a text {arg}", "the text {arg}", "a piece of text"), SINGLE, CHARS, CHAR_MAPS, TEXTUAL,
           ("", "hello world", "Anna 42", "XYZ", "aeiou", "a1b2", "   ", "mmm"), "str", False,
           lambda k: (f"a{k}bc {k}{k}D1", f"{k}", "qwx") if isinstance(k, str) else ()),
)  # fmt: skip
WEIGHTS = {"ints": 0.36, "range": 0.09, "below": 0.03, "digits": 0.05, "values": 0.05, "words": 0.23, "keys": 0.02, "split": 0.04, "chars": 0.13}
"""How often a task has each source."""
