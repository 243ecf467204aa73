"""Named classics of the corpus: well-known small functions, each in plain and in idiomatic style.

`$a` and `$b` stand for the argument names. Tests hold expected values written down, not computed by a solution.
"""

import re
from dataclasses import dataclass
from string import Template

from .classic_wording import WORDINGS
from .phrases import strings


@dataclass(frozen=True)
class Classic:
    name: str
    names: tuple[str, ...]
    arguments: tuple[tuple[str, ...], ...]
    docstrings: tuple[str, ...]
    plain: str
    idiomatic: str
    tests: tuple[tuple[tuple, object], ...]

    @property
    def sayings(self) -> tuple[str, ...]:
        """Every wording of the docstring, as templates."""
        return (*self.docstrings, *WORDINGS.get(self.name, ()), *strings("classics", self.name))

    @property
    def all_names(self) -> tuple[str, ...]:
        return (*self.names, *strings("classic_names", self.name, "names"))

    @property
    def all_arguments(self) -> tuple[tuple[str, ...], ...]:
        return (*self.arguments, *map(tuple, strings("classic_names", self.name, "arguments")))

    @property
    def locals(self) -> set[str]:
        """Names that the solutions use, which no argument may have."""
        return set(re.findall(r"(?<![$\w.])[A-Za-z_]\w*", f"{self.plain} {self.idiomatic}"))

    def bodies(self, arguments: tuple[str, ...]) -> dict[str, str]:
        """{style: body} for these argument names."""
        words = dict(zip("abc", arguments, strict=False))
        return {
            style: "\n    ".join(Template(body).substitute(words).split("\n"))
            for style, body in (("plain", self.plain), ("idiomatic", self.idiomatic))
        }

    def said(self, wording: str, arguments: tuple[str, ...]) -> str:
        return Template(wording).safe_substitute(dict(zip("abc", arguments, strict=False)))


N = (("n",), ("number",), ("num",), ("value",), ("x",), ("k",))
XS = (("nums",), ("numbers",), ("values",), ("xs",), ("data",), ("scores",), ("readings",), ("lst",))
S = (("s",), ("text",), ("string",), ("word",), ("sentence",), ("phrase",), ("line",))
AB = (("a", "b"), ("x", "y"), ("m", "n"), ("first", "second"), ("left", "right"))
ITEMS = (("items",), ("values",), ("seq",), ("xs",), ("data",), ("names",), ("words",), ("lst",))
PAIR = (("a", "b"), ("xs", "ys"), ("left", "right"), ("first", "second"), ("one", "two"))
STRINGS = (("a", "b"), ("s", "t"), ("first", "second"), ("one", "other"), ("word1", "word2"))

CLASSICS = (
    Classic(
        "prime",
        ("is_prime", "prime", "check_prime"),
        N,
        ("Check if a number is prime", "Return True if $a is a prime number", "Check whether $a is prime"),
        "if $a < 2:\n    return False\nfor i in range(2, int($a ** 0.5) + 1):\n    if $a % i == 0:\n        return "
        "False\n"
        "return True",
        "return $a > 1 and all($a % i for i in range(2, int($a ** 0.5) + 1))",
        (((0,), False), ((1,), False), ((2,), True), ((9,), False), ((17,), True), ((91,), False), ((97,), True)),
    ),
    Classic(
        "factorial",
        ("factorial", "fact"),
        N,
        ("Return the factorial of $a", "Compute $a factorial", "Calculate the factorial of a number"),
        "result = 1\nfor i in range(2, $a + 1):\n    result *= i\nreturn result",
        "import math\nreturn math.prod(range(2, $a + 1))",
        (((0,), 1), ((1,), 1), ((5,), 120), ((7,), 5040)),
    ),
    Classic(
        "palindrome",
        ("is_palindrome", "palindrome"),
        S,
        ("Check if a string is a palindrome", "Return True if $a reads the same backwards"),
        "for i in range(len($a) // 2):\n    if $a[i] != $a[-i - 1]:\n        return False\nreturn True",
        "return $a == $a[::-1]",
        ((("level",), True), (("",), True), (("ab",), False), (("abca",), False), (("noon",), True)),
    ),
    Classic(
        "fibonacci",
        ("fibonacci", "fib"),
        N,
        ("Return the $a-th Fibonacci number", "Compute the Fibonacci number with index $a"),
        "p, q = 0, 1\nfor _ in range($a):\n    p, q = q, p + q\nreturn p",
        "from functools import reduce\nreturn reduce(lambda p, _: (p[1], p[0] + p[1]), range($a), (0, 1))[0]",
        (((0,), 0), ((1,), 1), ((2,), 1), ((7,), 13), ((10,), 55)),
    ),
    Classic(
        "anagram",
        ("are_anagrams", "is_anagram", "anagram"),
        STRINGS,
        ("Check if two strings are anagrams", "Return True if $b is an anagram of $a"),
        "if len($a) != len($b):\n    return False\nfor c in $a:\n    if $a.count(c) != $b.count(c):\n        return "
        "False\n"
        "return True",
        "return sorted($a) == sorted($b)",
        ((("listen", "silent"), True), (("ab", "abb"), False), (("", ""), True), (("aab", "abb"), False)),
    ),
    Classic(
        "gcd",
        ("gcd", "greatest_common_divisor"),
        AB,
        ("Return the greatest common divisor of $a and $b", "Compute the greatest common divisor of two numbers"),
        "while $b:\n    $a, $b = $b, $a % $b\nreturn $a",
        "import math\nreturn math.gcd($a, $b)",
        (((12, 18), 6), ((7, 5), 1), ((0, 4), 4), ((100, 75), 25)),
    ),
    Classic(
        "lcm",
        ("lcm", "least_common_multiple"),
        AB,
        ("Return the least common multiple of $a and $b", "Compute the least common multiple of two numbers"),
        "result = $a\nwhile result % $b != 0:\n    result += $a\nreturn result",
        "import math\nreturn $a * $b // math.gcd($a, $b)",
        (((4, 6), 12), ((3, 5), 15), ((7, 7), 7), ((1, 9), 9)),
    ),
    Classic(
        "flatten",
        ("flatten", "flatten_list"),
        (("rows",), ("lists",), ("nested",)),
        ("Flatten a list of lists", "Return one list with the items of every list in $a"),
        "result = []\nfor row in $a:\n    for item in row:\n        result.append(item)\nreturn result",
        "return [item for row in $a for item in row]",
        ((([[1, 2], [3]],), [1, 2, 3]), (([],), []), (([[], [4]],), [4])),
    ),
    Classic(
        "reverse",
        ("reverse", "reverse_string"),
        S,
        ("Reverse a string", "Return $a reversed"),
        'result = ""\nfor c in $a:\n    result = c + result\nreturn result',
        "return $a[::-1]",
        ((("abc",), "cba"), (("",), ""), (("xy z",), "z yx")),
    ),
    Classic(
        "sorted",
        ("is_sorted", "check_sorted"),
        XS,
        ("Check if a list is sorted", "Return True if $a is in ascending order"),
        "for i in range(len($a) - 1):\n    if $a[i] > $a[i + 1]:\n        return False\nreturn True",
        "return all(p <= q for p, q in zip($a, $a[1:]))",
        ((([1, 2, 2],), True), (([],), True), (([3, 1],), False), (([1, 5, 4],), False)),
    ),
    Classic(
        "duplicates",
        ("remove_duplicates", "unique", "dedupe"),
        ITEMS,
        ("Remove the duplicates from a list", "Return the items of $a once each, in order"),
        "result = []\nfor item in $a:\n    if item not in result:\n        result.append(item)\nreturn result",
        "return list(dict.fromkeys($a))",
        ((([1, 2, 1, 3],), [1, 2, 3]), (([],), []), (([5, 5],), [5])),
    ),
    Classic(
        "has_duplicates",
        ("has_duplicates", "contains_duplicate"),
        ITEMS,
        ("Check if a list contains duplicates", "Return True if an item occurs twice in $a"),
        "seen = set()\nfor item in $a:\n    if item in seen:\n        return True\n    seen.add(item)\nreturn False",
        "return len(set($a)) < len($a)",
        ((([1, 2, 1],), True), (([],), False), (([1, 2],), False)),
    ),
    Classic(
        "frequencies",
        ("frequencies", "count_items", "frequency"),
        ITEMS,
        ("Count how often each item occurs", "Return a dictionary from each item of $a to its count"),
        "result = {}\nfor item in $a:\n    result[item] = result.get(item, 0) + 1\nreturn result",
        "return {item: $a.count(item) for item in $a}",
        ((([1, 2, 1],), {1: 2, 2: 1}), (([],), {}), ((["a"],), {"a": 1})),
    ),
    Classic(
        "most_common",
        ("most_common", "mode"),
        ITEMS,
        ("Return the most common item of $a", "Find the item that occurs most often"),
        "result = $a[0]\nfor item in $a:\n    if $a.count(item) > $a.count(result):\n        result = item\nreturn "
        "result",
        "return max($a, key=$a.count)",
        ((([1, 2, 2],), 2), ((["a"],), "a"), (([3, 3, 1, 1, 3],), 3)),
    ),
    Classic(
        "word_count",
        ("word_count", "count_words"),
        S,
        ("Count the words in a string", "Return the number of words in $a"),
        "result = 0\nfor word in $a.split():\n    result += 1\nreturn result",
        "return len($a.split())",
        ((("a b c",), 3), (("",), 0), (("  one ",), 1)),
    ),
    Classic(
        "transpose",
        ("transpose", "transpose_matrix"),
        (("matrix",), ("grid",), ("rows",)),
        ("Transpose a matrix", "Return the columns of $a as lists"),
        "result = []\nfor i in range(len($a[0])):\n    result.append([])\n    for row in $a:\n        "
        "result[i].append(row[i])\n"
        "return result",
        "return [list(column) for column in zip(*$a)]",
        ((([[1, 2], [3, 4]],), [[1, 3], [2, 4]]), (([[1, 2, 3]],), [[1], [2], [3]])),
    ),
    Classic(
        "dot",
        ("dot", "dot_product"),
        PAIR,
        ("Return the dot product of $a and $b", "Compute the dot product of two vectors"),
        "result = 0\nfor i in range(len($a)):\n    result += $a[i] * $b[i]\nreturn result",
        "return sum(p * q for p, q in zip($a, $b))",
        ((([1, 2], [3, 4]), 11), (([], []), 0), (([2], [-5]), -10)),
    ),
    Classic(
        "divisors",
        ("divisors", "factors"),
        N,
        ("Return the divisors of $a", "List the divisors of a number"),
        "result = []\nfor i in range(1, $a + 1):\n    if $a % i == 0:\n        result.append(i)\nreturn result",
        "return [i for i in range(1, $a + 1) if $a % i == 0]",
        (((1,), [1]), ((6,), [1, 2, 3, 6]), ((13,), [1, 13])),
    ),
    Classic(
        "perfect",
        ("is_perfect", "perfect_number"),
        N,
        ("Check if a number is perfect", "Return True if $a is a perfect number"),
        "result = 0\nfor i in range(1, $a):\n    if $a % i == 0:\n        result += i\nreturn $a > 0 and result == $a",
        "return $a > 0 and sum(i for i in range(1, $a) if $a % i == 0) == $a",
        (((6,), True), ((28,), True), ((12,), False), ((1,), False), ((0,), False)),
    ),
    Classic(
        "power",
        ("power", "raise_to"),
        (("base", "exp"), ("x", "n"), ("a", "b")),
        ("Return $a to the power of $b", "Raise $a to the power $b"),
        "result = 1\nfor _ in range($b):\n    result *= $a\nreturn result",
        "return $a ** $b",
        (((2, 10), 1024), ((5, 0), 1), ((-3, 3), -27)),
    ),
    Classic(
        "running",
        ("running_total", "prefix_sums", "cumulative_sum"),
        XS,
        ("Return the running totals of $a", "Compute the cumulative sums of a list"),
        "result = []\ntotal = 0\nfor value in $a:\n    total += value\n    result.append(total)\nreturn result",
        "from itertools import accumulate\nreturn list(accumulate($a))",
        ((([1, 2, 3],), [1, 3, 6]), (([],), []), (([4, -4],), [4, 0])),
    ),
    Classic(
        "intersection",
        ("intersection", "common_items"),
        PAIR,
        ("Return the items of $a that are also in $b", "Return the intersection of two lists, in order"),
        "result = []\nfor item in $a:\n    if item in $b:\n        result.append(item)\nreturn result",
        "return [item for item in $a if item in $b]",
        ((([1, 2, 3], [3, 1]), [1, 3]), (([], [1]), []), (([4], [5]), [])),
    ),
    Classic(
        "difference",
        ("difference", "subtract_lists"),
        PAIR,
        ("Return the items of $a that are not in $b", "Return the difference of two lists, in order"),
        "result = []\nfor item in $a:\n    if item not in $b:\n        result.append(item)\nreturn result",
        "return [item for item in $a if item not in $b]",
        ((([1, 2, 3], [3, 1]), [2]), (([], [1]), []), (([4], [5]), [4])),
    ),
    Classic(
        "average",
        ("average", "mean"),
        XS,
        ("Return the average of $a, or 0 if it is empty", "Compute the mean of a list of numbers"),
        "if not $a:\n    return 0\nresult = 0\nfor value in $a:\n    result += value\nreturn result / len($a)",
        "return sum($a) / len($a) if $a else 0",
        ((([1, 2, 3],), 2.0), (([],), 0), (([4],), 4.0), (([1, 2],), 1.5)),
    ),
    Classic(
        "pangram",
        ("is_pangram", "pangram"),
        S,
        ("Check if a string is a pangram", "Return True if $a contains every letter"),
        'for c in "abcdefghijklmnopqrstuvwxyz":\n    if c not in $a:\n        return False\nreturn True',
        'return set("abcdefghijklmnopqrstuvwxyz") <= set($a)',
        ((("abc",), False), (("the quick brown fox jumps over the lazy dog",), True), (("",), False)),
    ),
    Classic(
        "hamming",
        ("hamming_distance", "hamming"),
        STRINGS,
        ("Return the Hamming distance of two strings", "Count the positions where $a and $b differ"),
        "result = 0\nfor i in range(len($a)):\n    if $a[i] != $b[i]:\n        result += 1\nreturn result",
        "return sum(p != q for p, q in zip($a, $b))",
        ((("abc", "abd"), 1), (("", ""), 0), (("xy", "yx"), 2)),
    ),
    Classic(
        "primes",
        ("primes_up_to", "primes"),
        (("n",), ("limit",), ("top",)),
        ("Return the prime numbers up to $a", "List the primes up to $a"),
        "result = []\nfor i in range(2, $a + 1):\n    for j in range(2, i):\n        if i % j == 0:\n            "
        "break\n"
        "    else:\n        result.append(i)\nreturn result",
        "return [i for i in range(2, $a + 1) if all(i % j for j in range(2, i))]",
        (((1,), []), ((2,), [2]), ((11,), [2, 3, 5, 7, 11])),
    ),
    Classic(
        "invert",
        ("invert", "invert_dict"),
        (("d",), ("mapping",), ("table",)),
        ("Swap the keys and values of a dictionary", "Return $a with keys and values swapped"),
        "result = {}\nfor key in $a:\n    result[$a[key]] = key\nreturn result",
        "return {value: key for key, value in $a.items()}",
        ((({"a": 1},), {1: "a"}), (({},), {}), (({1: 2, 3: 4},), {2: 1, 4: 3})),
    ),
    Classic(
        "chunks",
        ("chunks", "chunk_list"),
        (("items", "size"), ("values", "n"), ("seq", "k")),
        ("Split $a into chunks of length $b", "Return the items of $a in lists of length $b"),
        "result = []\nfor i in range(0, len($a), $b):\n    result.append($a[i:i + $b])\nreturn result",
        "return [$a[i:i + $b] for i in range(0, len($a), $b)]",
        ((([1, 2, 3], 2), [[1, 2], [3]]), (([], 3), []), (([1, 2], 1), [[1], [2]])),
    ),
    Classic(
        "pairs",
        ("pairs_with_sum", "find_pairs"),
        (("nums", "target"), ("numbers", "total"), ("values", "goal")),
        ("Return the pairs of $a that add up to $b", "Find all pairs in $a whose sum is $b"),
        "result = []\nfor i in range(len($a)):\n    for j in range(i + 1, len($a)):\n        if $a[i] + $a[j] == $b:\n"
        "            result.append(($a[i], $a[j]))\nreturn result",
        "from itertools import combinations\nreturn [pair for pair in combinations($a, 2) if sum(pair) == $b]",
        ((([1, 2, 3], 4), [(1, 3)]), (([], 1), []), (([2, 2, 2], 4), [(2, 2), (2, 2), (2, 2)])),
    ),
    Classic(
        "capitalise",
        ("capitalize_words", "title_case"),
        S,
        ("Capitalize every word of a string", "Return $a with every word capitalized"),
        'result = []\nfor word in $a.split():\n    result.append(word.capitalize())\nreturn " ".join(result)',
        'return " ".join(word.capitalize() for word in $a.split())',
        ((("hello world",), "Hello World"), (("",), ""), (("ab",), "Ab")),
    ),
    Classic(
        "merge",
        ("merge_sorted", "merge"),
        PAIR,
        ("Merge two sorted lists into one sorted list", "Return the numbers of $a and $b in one sorted list"),
        "result = []\nfor value in $a:\n    result.append(value)\nfor value in $b:\n    result.append(value)\n"
        "result.sort()\nreturn result",
        "return sorted([*$a, *$b])",
        ((([1, 3], [2]), [1, 2, 3]), (([], []), []), (([5], [1, 9]), [1, 5, 9])),
    ),
    Classic(
        "squares",
        ("perfect_squares", "squares"),
        (("n",), ("limit",), ("top",)),
        ("Return the squares of the numbers below $a", "List the first $a square numbers"),
        "result = []\nfor i in range($a):\n    result.append(i * i)\nreturn result",
        "return [i * i for i in range($a)]",
        (((0,), []), ((1,), [0]), ((4,), [0, 1, 4, 9])),
    ),
    Classic(
        "binary",
        ("to_binary", "binary"),
        N,
        ("Return the binary digits of $a as a string", "Convert a number to binary"),
        'if $a == 0:\n    return "0"\nresult = ""\nwhile $a > 0:\n    result = str($a % 2) + result\n'
        "    $a //= 2\nreturn result",
        'return f"{$a:b}"',
        (((0,), "0"), ((5,), "101"), ((16,), "10000")),
    ),
    Classic(
        "power_of_two",
        ("is_power_of_two", "power_of_two"),
        N,
        ("Check if a number is a power of two", "Return True if $a is a power of two"),
        "if $a < 1:\n    return False\nwhile $a % 2 == 0:\n    $a //= 2\nreturn $a == 1",
        "return $a > 0 and $a & ($a - 1) == 0",
        (((0,), False), ((1,), True), ((6,), False), ((64,), True)),
    ),
    Classic(
        "second_largest",
        ("second_largest", "second_biggest", "runner_up"),
        XS,
        ("Return the second largest distinct number in $a", "Find the second largest different number in a list"),
        "result = []\nfor value in $a:\n    if value not in result:\n        result.append(value)\n"
        "result.sort()\nreturn result[-2]",
        "return sorted(set($a))[-2]",
        ((([1, 2, 3],), 2), (([5, 5, 1],), 1), (([9, 7, 8, 8],), 8), (([-1, -2],), -2)),
    ),
    Classic(
        "spread",
        ("spread", "value_range", "range_of", "span"),
        XS,
        (
            "Return the difference between the largest and the smallest of $a",
            "Return the range of a list: largest minus smallest",
        ),
        "low = $a[0]\nhigh = $a[0]\nfor value in $a:\n    if value < low:\n        low = value\n"
        "    if value > high:\n        high = value\nreturn high - low",
        "return max($a) - min($a)",
        ((([1, 2, 3],), 2), (([5],), 0), (([-1, 4],), 5), (([7, 7, 10],), 3)),
    ),
    Classic(
        "reverse_list",
        ("reverse_list", "reversed_list", "backwards"),
        ITEMS,
        ("Reverse a list", "Return the items of $a in reverse order"),
        "result = []\nfor item in $a:\n    result.insert(0, item)\nreturn result",
        "return $a[::-1]",
        ((([1, 2, 3],), [3, 2, 1]), (([],), []), (([5],), [5]), ((["a", "b"],), ["b", "a"])),
    ),
    Classic(
        "every_other",
        ("every_other", "every_second", "take_alternate"),
        ITEMS,
        ("Return every second item of $a, starting with the first", "Return the items of $a at even positions"),
        "result = []\nfor i in range(0, len($a), 2):\n    result.append($a[i])\nreturn result",
        "return $a[::2]",
        ((([1, 2, 3],), [1, 3]), (([],), []), (([5],), [5]), (([1, 2, 3, 4, 5],), [1, 3, 5])),
    ),
    Classic(
        "differences",
        ("differences", "deltas", "steps", "gaps"),
        XS,
        ("Return the differences between neighbours in $a", "Return each number minus the one before it"),
        "result = []\nfor i in range(1, len($a)):\n    result.append($a[i] - $a[i - 1])\nreturn result",
        "return [q - p for p, q in zip($a, $a[1:])]",
        ((([1, 4, 9],), [3, 5]), (([],), []), (([5],), []), (([5, 2],), [-3])),
    ),
    Classic(
        "add_pairs",
        ("add_lists", "pairwise_sum", "sum_pairs", "add_elementwise"),
        PAIR,
        ("Return the sums of the items of $a and $b, position by position", "Add two lists element by element"),
        "result = []\nfor p, q in zip($a, $b):\n    result.append(p + q)\nreturn result",
        "return [p + q for p, q in zip($a, $b)]",
        ((([1, 2], [3, 4]), [4, 6]), (([], []), []), (([5], [1]), [6]), (([0, 0], [1, 2]), [1, 2])),
    ),
    Classic(
        "zip_dict",
        ("to_dict", "make_dict", "zip_dict", "pair_up"),
        (("keys", "values"), ("names", "scores"), ("a", "b"), ("labels", "counts")),
        (
            "Return a dictionary from the items of $a to those of $b",
            "Build a dictionary from a list of keys and a list of values",
        ),
        "result = {}\nfor p, q in zip($a, $b):\n    result[p] = q\nreturn result",
        "return {p: q for p, q in zip($a, $b)}",
        (
            ((["a", "b"], [1, 2]), {"a": 1, "b": 2}),
            (([], []), {}),
            ((["k"], [5]), {"k": 5}),
            ((["x", "x"], [1, 2]), {"x": 2}),
        ),
    ),
    Classic(
        "contains",
        ("contains", "has_item", "is_in", "includes"),
        (("items", "target"), ("xs", "x"), ("values", "value"), ("names", "name"), ("words", "word")),
        ("Check if $b is in $a", "Return True if $a contains $b"),
        "for item in $a:\n    if item == $b:\n        return True\nreturn False",
        "return $b in $a",
        ((([1, 2], 2), True), (([], 1), False), (([5], 1), False), ((["a", "b"], "a"), True)),
    ),
    Classic(
        "occurrences",
        ("count_occurrences", "occurrences", "how_often", "times_in"),
        (("items", "target"), ("xs", "x"), ("values", "value"), ("names", "name"), ("words", "word")),
        ("Count how often $b occurs in $a", "Return the number of times $b is in $a"),
        "result = 0\nfor item in $a:\n    if item == $b:\n        result += 1\nreturn result",
        "return $a.count($b)",
        ((([1, 2, 2], 2), 2), (([], 1), 0), (([5], 1), 0), ((["a", "b"], "a"), 1)),
    ),
    Classic(
        "position",
        ("find_index", "index_of", "position", "find_position"),
        (("items", "target"), ("xs", "x"), ("values", "value"), ("names", "name"), ("words", "word")),
        ("Return the index of $b in $a, or -1", "Return the position of $b in $a, or -1 if it is not there"),
        "for i in range(len($a)):\n    if $a[i] == $b:\n        return i\nreturn -1",
        "return $a.index($b) if $b in $a else -1",
        ((([1, 2], 2), 1), (([], 1), -1), (([5], 1), -1), ((["a", "b", "b"], "b"), 1)),
    ),
    Classic(
        "all_equal",
        ("all_equal", "all_same", "is_uniform"),
        ITEMS,
        ("Check if all items of $a are equal", "Return True if every item of a list is the same"),
        "for item in $a:\n    if item != $a[0]:\n        return False\nreturn True",
        "return len(set($a)) <= 1",
        ((([1, 1],), True), (([],), True), (([5, 6],), False), ((["a"],), True)),
    ),
    Classic(
        "remove_vowels",
        ("remove_vowels", "strip_vowels", "without_vowels", "drop_vowels"),
        S,
        ("Remove the vowels from a string", "Return $a without its vowels"),
        'result = ""\nfor c in $a:\n    if c not in "aeiou":\n        result += c\nreturn result',
        'return "".join(c for c in $a if c not in "aeiou")',
        ((("hello",), "hll"), (("",), ""), (("aeiou",), ""), (("xyz",), "xyz")),
    ),
    Classic(
        "remove_spaces",
        ("remove_spaces", "strip_spaces", "without_spaces", "squeeze"),
        S,
        ("Remove the spaces from a string", "Return $a without spaces"),
        'result = ""\nfor c in $a:\n    if c != " ":\n        result += c\nreturn result',
        'return "".join(c for c in $a if c != " ")',
        ((("a b",), "ab"), (("",), ""), (("  ",), ""), (("xyz",), "xyz")),
    ),
    Classic(
        "reverse_words",
        ("reverse_words", "flip_words", "words_backwards"),
        S,
        ("Reverse the order of the words in a string", "Return the words of $a in reverse order, as a string"),
        'result = []\nfor word in $a.split():\n    result.insert(0, word)\nreturn " ".join(result)',
        'return " ".join($a.split()[::-1])',
        ((("a b",), "b a"), (("",), ""), (("one two three",), "three two one"), (("xyz",), "xyz")),
    ),
    Classic(
        "initials",
        ("initials", "acronym", "abbreviate"),
        (("name",), ("phrase",), ("text",), ("title",), ("s",)),
        ("Return the first letters of the words of $a in upper case", "Return the acronym of a phrase"),
        'result = ""\nfor word in $a.split():\n    result += word[0].upper()\nreturn result',
        'return "".join(word[0].upper() for word in $a.split())',
        ((("hello world",), "HW"), (("",), ""), (("one two three",), "OTT"), (("Ada Lovelace",), "AL")),
    ),
    Classic(
        "word_lengths",
        ("word_lengths", "lengths_of_words"),
        S,
        ("Return the lengths of the words of $a as a list", "Return a list of the lengths of the words in a string"),
        "result = []\nfor word in $a.split():\n    result.append(len(word))\nreturn result",
        "return [len(word) for word in $a.split()]",
        ((("hello world",), [5, 5]), (("",), []), (("a bc",), [1, 2]), (("xyz",), [3])),
    ),
    Classic(
        "char_counts",
        ("char_counts", "letter_counts", "count_letters", "letter_frequency"),
        S,
        ("Count how often each character occurs in $a", "Return a dictionary from each character of $a to its count"),
        "result = {}\nfor c in $a:\n    result[c] = result.get(c, 0) + 1\nreturn result",
        "return {c: $a.count(c) for c in $a}",
        ((("aab",), {"a": 2, "b": 1}), (("",), {}), (("zz",), {"z": 2}), (("ab",), {"a": 1, "b": 1})),
    ),
    Classic(
        "dict_total",
        ("total_value", "sum_values", "total", "dict_total"),
        (("d",), ("prices",), ("stock",), ("scores",), ("table",)),
        ("Return the sum of the values of $a", "Add up the values of a dictionary"),
        "result = 0\nfor value in $a.values():\n    result += value\nreturn result",
        "return sum($a.values())",
        ((({"a": 1, "b": 2},), 3), (({},), 0), (({"k": 5},), 5), (({"x": -1, "y": 1},), 0)),
    ),
    Classic(
        "best_key",
        ("best", "top_key", "key_of_max", "winner", "highest_key"),
        (("d",), ("prices",), ("stock",), ("scores",), ("votes",)),
        ("Return the key of $a with the largest value", "Find the key with the highest value in a dictionary"),
        "result = None\nfor key in $a:\n    if result is None or $a[key] > $a[result]:\n        result = key\n"
        "return result",
        "return max($a, key=$a.get)",
        ((({"a": 1, "b": 2},), "b"), (({"k": 5},), "k"), (({"x": 3, "y": 1},), "x"), (({"p": 0, "q": -1},), "p")),
    ),
    Classic(
        "filter_dict",
        ("filter_dict", "keep_above", "entries_above", "over_limit"),
        (("d", "limit"), ("prices", "limit"), ("stock", "n"), ("scores", "threshold"), ("ages", "limit")),
        (
            "Return the entries of $a whose value is greater than $b, as a dictionary",
            "Keep the entries of a dictionary with a value above $b",
        ),
        "result = {}\nfor key, value in $a.items():\n    if value > $b:\n        result[key] = value\nreturn result",
        "return {key: value for key, value in $a.items() if value > $b}",
        (
            (({"a": 1, "b": 2}, 1), {"b": 2}),
            (({}, 0), {}),
            (({"k": 5}, 5), {}),
            (({"x": 3, "y": 9}, 2), {"x": 3, "y": 9}),
        ),
    ),
    Classic(
        "triangular",
        ("triangular", "sum_to", "sum_up_to", "gauss"),
        N,
        ("Return the sum of the numbers from 1 to $a", "Add up all numbers from 1 to $a"),
        "result = 0\nfor i in range(1, $a + 1):\n    result += i\nreturn result",
        "return sum(i for i in range(1, $a + 1))",
        (((0,), 0), ((1,), 1), ((4,), 10), ((10,), 55)),
    ),
    Classic(
        "countdown",
        ("countdown", "count_down"),
        N,
        ("Return the numbers from $a down to 1", "Count down from $a to 1, as a list"),
        "result = []\nfor i in range($a, 0, -1):\n    result.append(i)\nreturn result",
        "return [i for i in range($a, 0, -1)]",
        (((0,), []), ((1,), [1]), ((3,), [3, 2, 1]), ((5,), [5, 4, 3, 2, 1])),
    ),
    Classic(
        "fizzbuzz",
        ("fizzbuzz", "fizz_buzz"),
        N,
        (
            "Return the FizzBuzz list up to $a",
            "Return the numbers from 1 to $a as strings, with Fizz for multiples of 3 and Buzz for multiples of 5",
        ),
        'result = []\nfor i in range(1, $a + 1):\n    if i % 15 == 0:\n        result.append("FizzBuzz")\n'
        '    elif i % 3 == 0:\n        result.append("Fizz")\n    elif i % 5 == 0:\n'
        '        result.append("Buzz")\n    else:\n        result.append(str(i))\nreturn result',
        'return ["Fizz" * (i % 3 == 0) + "Buzz" * (i % 5 == 0) or str(i) for i in range(1, $a + 1)]',
        (((0,), []), ((3,), ["1", "2", "Fizz"]), ((5,), ["1", "2", "Fizz", "4", "Buzz"]), ((1,), ["1"])),
    ),
    Classic(
        "reverse_number",
        ("reverse_number", "reverse_digits", "flip_digits"),
        N,
        ("Reverse the digits of $a", "Return $a with its digits in reverse order"),
        "result = 0\nwhile $a > 0:\n    result = result * 10 + $a % 10\n    $a //= 10\nreturn result",
        "return int(str($a)[::-1])",
        (((0,), 0), ((12,), 21), ((120,), 21), ((905,), 509)),
    ),
    Classic(
        "repeat",
        ("repeat", "repeat_string", "times"),
        (("s", "n"), ("text", "times"), ("word", "count"), ("string", "k")),
        ("Repeat $a $b times", "Return $a repeated $b times"),
        'result = ""\nfor _ in range($b):\n    result += $a\nreturn result',
        "return $a * $b",
        ((("ab", 2), "abab"), (("", 3), ""), (("x", 0), ""), (("q", 3), "qqq")),
    ),
    Classic(
        "first_n",
        ("first_n", "take", "head"),
        (("items", "n"), ("xs", "k"), ("values", "count"), ("names", "n")),
        ("Return the first $b items of $a", "Take the first $b elements of a list"),
        "result = []\nfor item in $a:\n    if len(result) == $b:\n        break\n    result.append(item)\n"
        "return result",
        "return $a[:$b]",
        ((([1, 2, 3], 2), [1, 2]), (([], 1), []), (([5], 3), [5]), ((["a", "b"], 0), [])),
    ),
    Classic(
        "union",
        ("union", "all_items", "combined"),
        PAIR,
        (
            "Return the items that are in $a or in $b, sorted and without duplicates",
            "Return the sorted union of two lists",
        ),
        "result = []\nfor item in $a:\n    if item not in result:\n        result.append(item)\nfor item in $b:\n"
        "    if item not in result:\n        result.append(item)\nresult.sort()\nreturn result",
        "return sorted({*$a, *$b})",
        ((([1, 2], [2, 3]), [1, 2, 3]), (([], []), []), (([5], [1]), [1, 5]), (([3, 3], [3]), [3])),
    ),
    Classic(
        "subset",
        ("is_subset", "contains_all", "subset"),
        PAIR,
        ("Check if every item of $a is in $b", "Return True if $a is a subset of $b"),
        "for item in $a:\n    if item not in $b:\n        return False\nreturn True",
        "return all(item in $b for item in $a)",
        ((([1], [1, 2]), True), (([], []), True), (([5], [1]), False), (([3, 4], [4, 3]), True)),
    ),
)
