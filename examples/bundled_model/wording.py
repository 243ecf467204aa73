"""How a composed task is said: many people's ways of asking for one thing."""

import random
from dataclasses import dataclass

from .corpus_parts import SOURCES, Filter, Map, Source
from .phrases import PHRASES, made_up_name, pairs, strings


@dataclass(frozen=True)
class Asked:
    """What is asked for. keeps: none, one or two filters, joined by `joiner`; slots: the words of each filter's `{k}`,
    and `map_slot` of the map's; separator: of a join."""

    source: Source
    aggregate: str
    map: Map
    keeps: tuple[Filter, ...]
    argument: str
    joiner: str = "and"
    slots: tuple[str, ...] = ()
    map_slot: str = ""
    separator: str = ""


VERBS = (
    "Return",
    "Return",
    "Return",
    "Compute",
    "Calculate",
    "Find",
    "Get",
    "Give back",
    "Work out",
    "Give",
    "Determine",
    "Figure out",
    "Report",
    "Produce",
    "Returns",
    "Computes",
    "Finds",
    "Gives",
    "Hand back",
    "Tell me",
    "Please return",
    "Should return",
    "Write a function that returns",
    "This function returns",
    "I need",
    "We want",
    "Obtain",
)
ALL_VERBS = VERBS + strings("verbs")
AFTER_NOUN = (
    "greater",
    "larger",
    "bigger",
    "above",
    "over",
    "more",
    "higher",
    "strictly",
    "less",
    "smaller",
    "below",
    "under",
    "lower",
    "at",
    "divisible",
    "evenly",
    "equal",
    "different",
    "other",
    "longer",
    "shorter",
    "found",
    "no",
)
AFTER_NOUN_ONLY = (
    "starting",
    "beginning",
    "ending",
    "containing",
    "including",
    "lacking",
    "with",
    "of",
    "without",
    "made",
    "consisting",
    "written",
    "in",
)
PLURALS = (
    "multiples",
    "vowels",
    "consonants",
    "digits",
    "letters",
    "capitals",
    "capital",
    "palindromes",
    "small",
    "not",
)
SEPARATORS = {
    "": (
        "joined into one string",
        "joined together",
        "concatenated",
        "glued together into one string",
        "as one string",
        "run together",
    ),
    ", ": (
        "joined with commas",
        "separated by commas",
        "joined by a comma and a space",
        "as a comma-separated string",
    ),
    "-": ("joined with dashes", "joined with hyphens", "separated by dashes", "joined by '-'"),
    " ": ("joined with spaces", "separated by spaces", "with spaces between them", "joined by a space"),
}
ITS = {
    "square": "square",
    "cube": "cube",
    "double": "double",
    "triple": "triple",
    "half": "half",
    "length": "length",
    "abs": "absolute value",
    "upper": "upper-case form",
    "reversed": "reversal",
    "head": "first letter",
    "tail": "last letter",
    "code": "character code",
    "digits": "number of digits",
    "digit": "last digit",
    "negation": "negation",
    "text": "text form",
}
ENDS = {
    "sum": (
        "add them up",
        "add up the results",
        "return their sum",
        "sum the results",
        "sum them",
        "return the total",
        "add everything up",
    ),
    "product": ("multiply them together", "return the product", "multiply the results"),
    "count": ("count them", "return how many there are", "say how many there are", "return how many are left"),
    "list": (
        "return them as a list",
        "return the list",
        "collect the results in a list",
        "give back the results",
        "return the new list",
    ),
    "set": ("collect them in a set", "return them as a set", "put the results in a set"),
    "distinct": ("count the distinct results", "return how many different ones there are"),
    "sorted": ("sort them", "return them sorted", "sort the results", "return the results in ascending order"),
    "descending": (
        "sort them in descending order",
        "return them sorted from largest to smallest",
        "return the results largest first",
    ),
    "max": (
        "return the largest, or None",
        "return the biggest one, or None",
        "find the maximum, or None if there is none",
    ),
    "min": (
        "return the smallest, or None",
        "return the lowest one, or None",
        "find the minimum, or None if there is none",
    ),
    "first": ("return the first one, or None", "give back the first, or None"),
}
SUPERLATIVES = {
    "max": ("largest", "biggest", "greatest", "highest", "maximum"),
    "min": ("smallest", "lowest", "least", "minimum"),
    "longest": ("longest",),
    "shortest": ("shortest",),
    "first": ("first",),
}
TESTS = (
    "Check if {}",
    "Check whether {}",
    "Return True if {}",
    "Return True if {}",
    "Return True when {}",
    "Tell whether {}",
    "Test if {}",
    "Determine whether {}",
    "Say whether {}",
    "True if {}",
    "True when {}",
    "Verify that {}",
    "See if {}",
    "Returns True if {}",
    "Return whether {}",
    "Decide whether {}",
    "Find out if {}",
    "Is it true that {}?",
    "Return True exactly when {}",
    "Return True if {}, else False",
    "Return True if {}, False otherwise",
    "Tells you whether {}",
)
ALL_TESTS = TESTS + strings("tests")
NEUTRAL_BEFORE = (
    "Helper for the report",
    "Used by the dashboard",
    "Part of the statistics page",
    "A small exercise",
    "Small helper",
)
NEUTRAL_AFTER = (
    "The order does not matter",
    "Do not change the input",
    "The input may be empty",
    "It is used in the report",
    "The input is never None",
    "No printing",
    "Keep it simple",
    "Used by the tests",
    "Works for any size",
    "The list may be empty",
    "Called once a day",
    "Assume the input is valid",
)


def singular(phrase: str, noun: tuple[str, str]) -> str:
    return phrase.replace(noun[0], noun[1], 1)


WIDE = 0.6
"""Share of sentences whose filter is said in any of its words, the rare ones too."""
BARE = {"ints": ("numbers", "number"), "words": ("strings", "string"), "chars": ("characters", "character")}
"""Sources that need not be named, with a noun that says what they are of."""
EITHER = (("values", "value"), ("items", "item"), ("entries", "entry"), ("elements", "element"), ("words", "word"))
"""Nouns that might be of several sources."""
LISTED = ("list", "array", "sequence", "series", "collection")
MAPPED = ("dict", "map", "key", "table")
CONTAINERS = {
    "ints": LISTED,
    "words": LISTED,
    "values": MAPPED,
    "keys": MAPPED,
    "entries": MAPPED,
    "split": ("sentence", "text", "line", "phrase", "string", "message"),
}
"""What a wording says of a source where the argument's name does not."""
GIVEN_AS = {"below": "range", "keys": "values", "entries": "values"}
IMPERATIVES = (
    *("return", "give", "find", "compute", "count", "add", "calculate", "get", "work out", "sum", "collect", "sort"),
    *("check", "take", "keep", "pick", "select", "list", "make", "build", "put", "multiply", "join", "drop", "tell"),
)


class Speaker:
    """One person's wording of one task: the draws that stay the same within it."""

    def __init__(self, asked: Asked, rng: random.Random):
        self.asked, self.rng = asked, rng
        source = asked.source
        nouns = [*source.nouns]
        own = asked.argument
        plural = own.islower() and own.isalpha() and own.endswith("s") and len(own) > 3
        if source.own_noun and plural and rng.random() < 0.4:
            nouns = [(own, own.removesuffix("s") if not own.endswith("ies") else own[:-3] + "y")]
        if source.key in BARE and rng.random() < 0.12:
            self.where = ""
            self.noun = rng.choice((*(noun for noun in nouns if noun not in EITHER), BARE[source.key]))
            return
        kind = "keys" if source.key == "entries" else source.key
        while True:
            further = kind in PHRASES["nouns"] and rng.random() < 0.3
            self.noun = rng.choice(pairs("nouns", kind) if further else nouns[:2] * 3 + nouns)
            self.where = self._where(rng.choice(strings("where", kind) if rng.random() < 0.45 else source.where))
            if self._says_what_it_is_of():
                return

    def _says_what_it_is_of(self) -> bool:
        """Whether one can tell a list from a dictionary and from a text, by the argument's name, the noun or where."""
        source, argument = self.asked.source, self.asked.argument
        says = CONTAINERS.get(source.key)
        if says is None or (source.key in ("ints", "words") and self.noun not in EITHER):
            return True
        others = [each for each in SOURCES if each.key in CONTAINERS and CONTAINERS[each.key] != says]
        if argument in source.arguments and not any(argument in each.arguments for each in others):
            return True
        words = f"{self.noun[0]}{self.where}".replace(argument, "").lower()
        return any(word in words for word in says)

    def _where(self, text: str) -> str:
        return (" " + text.format(arg=self.asked.argument)) if text else ""

    def kept(self, many: bool, where: str | None = None) -> str:
        """ "even numbers in xs", "word of the list that starts with b"."""
        rng, where, which = self.rng, self.where if where is None else where, 0 if many else 1
        noun, keeps = self.noun[which], self.asked.keeps
        if not keeps:
            return noun + where
        if self.asked.source.key == "entries":
            return self._key_of_value(noun + where)
        if len(keeps) == 2:
            first, second = (
                self.predicate(keep, slot, many) for keep, slot in zip(keeps, self.asked.slots, strict=True)
            )
            if self.asked.joiner == "and" and keeps[0].adjectives and rng.random() < 0.5:
                inner = f"{rng.choice(keeps[0].adjectives)} {noun}{where}"
                return f"{inner} {rng.choice(('that', 'which'))} {second}"
            second = (
                second.removeprefix("are ").removeprefix("is ") if first.split()[0] == second.split()[0] else second
            )
            return f"{noun}{where} {rng.choice(('that', 'which'))} {first} {self.asked.joiner} {second}"
        keep, k = keeps[0], self.asked.slots[0]
        forms = [f"{adjective} {noun}{where}" for adjective in keep.adjectives] * 2
        forms += [pair[which].format(k=k) + where for pair in keep.nouns]
        for phrase in keep.phrases:
            start = phrase.split()[0]
            if start in AFTER_NOUN or start in AFTER_NOUN_ONLY:
                forms += [f"{noun} {phrase}{where}", f"{noun}{where} {phrase}"]
        if rng.random() < WIDE:
            forms += [form for text in keep.after for form in (f"{noun} {text}{where}", f"{noun}{where} {text}")]
        forms += [f"{noun}{where} {rng.choice(('that', 'which'))} {self.predicate(keep, k, many)}"] * 2
        return rng.choice(forms).format(k=k)

    def _key_of_value(self, keys: str) -> str:
        """ "keys of d whose value is above 3"."""
        rng, keep, k = self.rng, self.asked.keeps[0], self.asked.slots[0]
        value = rng.choice(("value", "value", "value", rng.choice(pairs("nouns", "values"))[1]))
        after = [text.format(k=k) for text in (*keep.after, *keep.phrases) if text.split()[0] in AFTER_NOUN]
        if after and rng.random() < 0.3:
            return f"{keys} with a {value} {rng.choice(after)}"
        if keep.adjectives and rng.random() < 0.4:
            adjective = rng.choice(keep.adjectives)
            return f"{keys} with {'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {value}"
        whose = rng.choice(("whose {}", "whose {}", "for which the {}", "where the {}")).format(value)
        return f"{keys} {whose} {self.predicate(keep, k, False)}"

    def rest(self) -> str | None:
        """The items that are not kept: "odd numbers in xs", "words of the list without a b"."""
        keep = self.asked.keeps[0]
        if len(self.asked.keeps) > 1 or self.asked.source.key == "entries":
            return None
        noun = self.noun[0]
        forms = [f"{text} {noun}{self.where}" for text in keep.rest_adjectives] * 2
        forms += [
            form for text in keep.rest_after for form in (f"{noun}{self.where} {text}", f"{noun} {text}{self.where}")
        ]
        forms += [text + self.where for text in keep.rest_nouns]
        return self.rng.choice(forms).format(k=self.asked.slots[0]) if forms else None

    def predicate(self, keep: Filter, k: str, many: bool) -> str:
        """ "are greater than 3", "starts with b"."""
        which, be = (0, "are") if many else (1, "is")
        wide = self.rng.random() < WIDE
        forms = [pair[which] for pair in (*keep.verbs, *(keep.wide_verbs if wide else ()))] * 2
        for phrase in keep.phrases:
            start = phrase.split()[0]
            if start in AFTER_NOUN_ONLY and start not in ("of", "in", "made", "written"):
                continue
            if (start in ("a",) and many) or (start in PLURALS and not many and start != "not"):
                continue
            if (phrase.startswith("not a ") and many) or (
                phrase in ("not vowels", "not digits", "not spaces") and not many
            ):
                continue
            forms.append(f"{be} {phrase}")
        forms += [f"{be} {text}" for text in keep.are] if wide else []
        forms = forms or [f"{be} {'one' if not many else 'some'} of the {keep.nouns[0][0]}"]
        return self.rng.choice(forms).format(k=k)

    def all_of(self, article: bool = True, where: str | None = None) -> str:
        """The items, as they are made: "the squares of the even numbers in xs"."""
        form = self.rng.choice(self.asked.map.of)
        kept = self.kept(True, where)
        said = form.replace("of {np}", f"of the {kept}").replace("{np}", kept).format(k=self.asked.map_slot)
        return f"the {said}" if article else said

    def done_to(self, objects: str) -> str:
        return self.rng.choice(self.asked.map.verbs).format(o=objects, k=self.asked.map_slot)

    def one(self) -> str:
        kept = self.kept(False)
        return f"{'an' if kept[0] in 'aeiou' else 'a'} {kept}"

    def nothing(self) -> str:
        """What is said of an empty result; None is what it gives in any case."""
        if self.rng.random() < 0.4:
            return ""
        if self.rng.random() < 0.5:
            return self.rng.choice(strings("nothing"))
        return self.rng.choice(
            (
                ", or None",
                ", or None if there is none",
                ", or None if there are none",
                "; None if there is none",
                ", None when empty",
                f". Return None if there is no such {self.noun[1]}",
                ". If there is none, return None",
                ", or None when there is no match",
                ", or None if it is empty",
            )
        )

    def sentence(self) -> str:
        rng = self.rng
        if rng.random() < 0.22 and (said := self.steps()):
            return said
        if rng.random() < 0.16:
            return self.given()
        return self.plainly()

    def plainly(self) -> str:
        """One sentence of the aggregate's forms."""
        mapped, aggregate = self.asked.map.key != "id", self.asked.aggregate
        if self.rng.random() < 0.5 and (said := self.further(mapped)):
            return said
        return getattr(self, f"_{aggregate}", self._nouns)(mapped)

    def kind(self) -> str | None:
        """The aggregate's name in `phrases.json`, which has nothing for a join with something between."""
        if self.asked.aggregate != "join":
            return self.asked.aggregate
        return None if self.asked.separator else "join_nothing"

    def further(self, mapped: bool) -> str | None:
        """A form of `phrases.json`, None where it has none for what is asked."""
        rng, asked, kind = self.rng, self.asked, self.kind()
        if kind is None:
            return None
        forms = strings("aggregates", kind)
        if kind in ("any", "all", "none"):
            keep, k = asked.keeps[0], asked.slots[0]
            many, one = (noun + self.where for noun in self.noun)
            return rng.choice(forms).format(one, self.predicate(keep, k, False), many, self.predicate(keep, k, True))
        if kind == "dict":
            return rng.choice(forms).format(self.kept(False), ITS[asked.map.key])
        chars = asked.source.key == "chars"  # what is kept of a text is a text, else it is a list
        if kind == ("join_nothing" if chars else "list") and asked.keeps and not mapped and rng.random() < 0.7:
            rest = self.rest() if rng.random() < 0.6 else None
            if rest is not None:
                return rng.choice(strings("aggregates", "discard")).format(rest)
            return rng.choice(strings("aggregates", "filter")).format(self.kept(True))
        if kind == "list" and mapped and rng.random() < 0.5:
            each = rng.choice((f"each {self.kept(False)}", f"every {self.kept(False)}", f"all {self.kept(True)}"))
            return rng.choice(strings("aggregates", "map_each")).format(self.done_to(each))
        if kind == "list" and chars:
            forms = tuple(form for form in forms if "list" in form.lower())
        said = rng.choice(forms).format(self.all_of(article=False))
        return said + self.nothing() if kind in SUPERLATIVES else said

    def steps(self) -> str | None:
        """One thing after the other: "Keep the even numbers in xs, square them and add them up"."""
        rng, asked = self.rng, self.asked
        ends = ENDS.get(asked.aggregate)
        if asked.aggregate == "join":
            ends = [f"return them {phrase}" for phrase in SEPARATORS[asked.separator]]
        mapped = bool(asked.map.verbs)
        if ends is None or not (mapped or asked.keeps):
            return None
        kind = self.kind()
        end = rng.choice((*ends, *(strings("ends", kind) if kind is not None else ())))
        if not asked.keeps:
            objects = rng.choice(
                (
                    f"each {self.kept(False)}",
                    f"every {self.kept(False)}",
                    f"all {self.kept(True)}",
                    f"the {self.kept(True)}",
                )
            )
            said = self.done_to(objects)
            return rng.choice((f"{said} and {end}", f"{said}, then {end}", f"{said}. Then {end}"))
        take = rng.choice(
            (
                "Take",
                "Keep",
                "Pick",
                "Select",
                "Take only",
                "Keep only",
                "Consider only",
                "Look at",
                "Pick out",
                "Use only",
            )
        )
        kept = f"{take} the {self.kept(True)}"
        if rng.random() < 0.3 and (rest := self.rest()):
            return self._without(rest, end, mapped)
        if not mapped:
            return rng.choice((f"{kept} and {end}", f"{kept}, then {end}", f"{kept}. Then {end}"))
        done = self.done_to(rng.choice(("them", "each", "each one", "each of them")))
        return rng.choice(
            (
                f"{kept}, {done} and {end}",
                f"{kept}, {done}, then {end}",
                f"{kept}. {done} and {end}",
                f"{kept}, {done}, and {end}",
            )
        )

    def _without(self, rest: str, end: str, mapped: bool) -> str:
        """ "Ignore the odd numbers in xs, square the rest and add them up"."""
        rng = self.rng
        drop = rng.choice(
            (
                "Ignore",
                "Skip",
                "Drop",
                "Leave out",
                "Throw away",
                "Remove",
                "Without",
                "Discard",
                "Filter out",
                "Forget",
            )
        )
        others = rng.choice(("the rest", "the others", "what is left", "those that remain", "everything else"))
        dropped = f"{drop} {rng.choice(('the ', 'any ', 'all ', ''))}{rest}"
        if mapped:
            return f"{dropped}, {self.done_to(others)} {rng.choice(('and', 'and then', ', then'))} {end}".replace(
                " ,", ","
            )
        if "their " in end:
            end = end.replace("their ", "the ") + f" of {others}"
        end = end.replace("them", others)
        return f"{dropped}{rng.choice((' and ', ', then ', '. Then '))}{end}"

    def given(self) -> str:
        rng, asked = self.rng, self.asked
        further = strings("given", GIVEN_AS.get(asked.source.key, asked.source.key))
        given = rng.choice(further if rng.random() < 0.5 else asked.source.given).format(arg=asked.argument)
        self.where = "" if asked.source.key not in ("range", "below", "digits") else self.where
        said = self.plainly()
        said = said[0].lower() + said[1:]
        if said.startswith(IMPERATIVES) and rng.random() < 0.5:
            return rng.choice(strings("given_forms")).format(given, said)
        if said.startswith(IMPERATIVES):
            return rng.choice(
                (
                    "Given {}, {}",
                    "Given {}, {}",
                    "Take {} and {}",
                    "For {}, {}",
                    "You get {}: {}",
                    "You are given {}. {}",
                )
            ).format(given, said)
        return f"Given {given}, {said}"

    def _nouns(self, mapped: bool) -> str:
        rng, aggregate = self.rng, self.asked.aggregate
        nouns = {
            "sum": ("the sum of {}", "the total of {}", "the sum of all {}"),
            "product": ("the product of {}", "the product of all {}"),
            "set": ("the set of {}", "a set of {}", "a set with {}"),
            "list": (
                "a list of {}",
                "a list with {}",
                "a list of all {}",
                "a new list with {}",
                "the list of {}",
                "{}",
                "{}",
                "all {}",
                "only {}",
            ),
            "sorted": (
                "a sorted list of {}",
                "{} in ascending order",
                "{} sorted",
                "{} in increasing order",
                "{} in sorted order",
                "{} in order",
                "a list of {}, sorted",
                "a list of {} in ascending order",
            ),
            "descending": (
                "{} in descending order",
                "{} sorted from largest to smallest",
                "{} in decreasing order",
                "{} in reverse sorted order",
                "a list of {} in descending order",
                "{}, sorted in descending order",
            ),
        }[aggregate]
        if aggregate == "list" and self.asked.source.key == "chars":
            nouns = tuple(form for form in nouns if "list" in form)
        form = rng.choice(nouns)
        items = self.all_of(
            article=not form.startswith(("the sum of all", "the product of all", "a list of all", "all "))
        )
        said = form.format(items)
        if rng.random() < 0.1:
            return said[0].upper() + said[1:]
        return f"{rng.choice(ALL_VERBS)} {said}"

    def _sum(self, mapped: bool) -> str:
        if self.rng.random() < 0.4:
            return self._nouns(mapped)
        forms = (
            "Add up {}",
            "Add up {}",
            "Sum {}",
            "Sum up {}",
            "Add together {}",
            "Total {}",
            "Add {} together",
            "Tally up {}",
            "Adds up {}",
            "What is the sum of {}?",
            "What do {} add up to?",
            "Sum of {}",
            "Total of {}",
            "What is the total of {}?",
            "Sums {}",
            "Take {} and add them up",
            "Total up {}",
            "Add all {} up",
        )
        form = self.rng.choice(forms)
        return form.format(self.all_of(article="all" not in form))

    def _product(self, mapped: bool) -> str:
        if self.rng.random() < 0.5:
            return self._nouns(mapped)
        forms = (
            "Multiply {}",
            "Multiply {} together",
            "Multiply together {}",
            "Multiply all {}",
            "What is the product of {}?",
            "Product of {}",
            "Multiplies {} together",
            "Take {} and multiply them",
            "What do you get when you multiply {}?",
        )
        form = self.rng.choice(forms)
        return form.format(self.all_of(article="all" not in form))

    def _count(self, mapped: bool) -> str:
        rng, keeps = self.rng, self.asked.keeps
        if len(keeps) == 1 and rng.random() < 0.3:
            pred = self.predicate(keeps[0], self.asked.slots[0], True)
            be = pred.startswith("are ")
            rest = pred.removeprefix("are ")
            some = f"the {self.noun[0]}{self.where}" if rng.random() < 0.5 else f"{self.noun[0]}{self.where}"
            how = f"How many of {some}" if some.startswith("the") else f"How many {some}"
            return rng.choice(
                (
                    f"{how} {pred}?",
                    f"{how} {pred}?",
                    f"Count how many {self.noun[0]}{self.where} {pred}",
                    f"Return how many of the {self.noun[0]}{self.where} {'are ' + rest if be else pred}",
                )
            )
        forms = (
            "Count the {}",
            "Count the {}",
            "How many {} are there?",
            "Return the number of {}",
            "Count {}",
            "Count all {}",
            "The number of {}",
            "Return how many {} there are",
            "Tell how many {} there are",
            "Number of {}",
            "Find the number of {}",
            "Count how many {} there are",
            "Get the count of {}",
            "Return the count of {}",
            "Counts the {}",
            "Find out how many {} there are",
            "Say how many {} there are",
            "What is the number of {}?",
            "Work out how many {} there are",
            "Give the number of {}",
            "Compute the number of {}",
        )
        return rng.choice(forms).format(self.kept(True))

    def _distinct(self, mapped: bool) -> str:
        forms = (
            "Count the distinct {}",
            "Return the number of distinct {}",
            "How many different {} are there?",
            "Count the different {}",
            "Return the number of different {}",
            "Count the unique {}",
            "Return how many distinct {} there are",
            "Number of unique {}",
            "Find how many different {} there are",
            "Count {} without repeats",
            "How many distinct {} are there?",
        )
        return self.rng.choice(forms).format(self.all_of(article=False))

    def _extreme(self, mapped: bool) -> str:
        rng = self.rng
        best = rng.choice(SUPERLATIVES[self.asked.aggregate] + strings("superlatives", self.asked.aggregate))
        if self.asked.map.key == "length" and self.asked.aggregate in ("max", "min") and rng.random() < 0.6:
            best = "longest" if self.asked.aggregate == "max" else "shortest"
            form = rng.choice(
                (
                    "{verb} the length of the {best} {kept}",
                    "{verb} how long the {best} {kept} is",
                    "How long is the {best} {kept}?",
                    "length of the {best} {kept}",
                    "How many letters does the {best} {kept} have?",
                    "{verb} the number of letters of the {best} {kept}",
                )
            )
            return form.format(verb=rng.choice(ALL_VERBS), best=best, kept=self.kept(False)) + (
                "" if form.endswith("?") else self.nothing()
            )
        if mapped or best in ("maximum", "minimum"):
            said = f"the {best} of {self.all_of()}"
        else:
            said = rng.choice(
                (f"the {best} {self.kept(False)}", f"the {best} {self.kept(False)}", f"the {best} of {self.all_of()}")
            )
        if rng.random() < 0.1:
            return f"What is {said}?" if rng.random() < 0.5 else said[0].upper() + said[1:] + self.nothing()
        verb = rng.choice((*ALL_VERBS, "Find", "Find", "Pick", "Look up", "Pick out"))
        return f"{verb} {said}{self.nothing()}"

    def _sortedset(self, mapped: bool) -> str:
        return self.rng.choice(strings("aggregates", "sortedset")).format(self.all_of(article=False))

    _max = _min = _longest = _shortest = _first = _extreme

    def _list(self, mapped: bool) -> str:
        rng = self.rng
        chars = self.asked.source.key == "chars"  # "keep the digits" of a text is a text
        if mapped and not chars and rng.random() < 0.45:
            said = self.done_to(
                rng.choice(
                    (
                        f"each {self.kept(False)}",
                        f"every {self.kept(False)}",
                        f"all {self.kept(True)}",
                        f"the {self.kept(True)}",
                    )
                )
            )
            return said[0].upper() + said[1:]
        if self.asked.keeps and not mapped and not chars and rng.random() < 0.5:
            forms = (
                "Keep only {}",
                "Pick out {}",
                "Select {}",
                "Extract {}",
                "Filter {}",
                "Collect {}",
                "Keep {}",
                "Return only {}",
                "Gather {}",
                "Give back only {}",
                "Take only {}",
                "List {}",
                "Pick {}",
                "Get {}",
                "Drop everything but {}",
                "Leave only {}",
                "Gather {} in a list",
                "Collect {} in a list",
            )
            return rng.choice(forms).format(self.all_of())
        if rng.random() < 0.4:
            forms = (
                "List {}",
                "Collect {} in a list",
                "Make a list of {}",
                "Build a list of {}",
                "Create a list of {}",
                "Put {} in a list",
                "Build a list with {}",
                "Make a new list with {}",
                "Collect {}",
            )
            return rng.choice(forms).format(self.all_of())
        return self._nouns(mapped)

    def _set(self, mapped: bool) -> str:
        if self.rng.random() < 0.5:
            return self._nouns(mapped)
        forms = (
            "Collect {} in a set",
            "Put {} in a set",
            "Make a set of {}",
            "Return {} as a set",
            "Gather {} in a set",
            "Build the set of {}",
        )
        return self.rng.choice(forms).format(self.all_of())

    def _sorted(self, mapped: bool) -> str:
        if self.rng.random() < 0.5:
            return self._nouns(mapped)
        forms = (
            "Sort {}",
            "Order {}",
            "Arrange {} in ascending order",
            "Put {} in order",
            "Sort {} in ascending order",
            "Sorts {}",
            "Return {} from smallest to largest",
            "Sort {} in increasing order",
        )
        return self.rng.choice(forms).format(self.all_of())

    def _descending(self, mapped: bool) -> str:
        if self.rng.random() < 0.5:
            return self._nouns(mapped)
        forms = (
            "Sort {} in descending order",
            "Sort {} from largest to smallest",
            "Order {} from high to low",
            "Sort {} in reverse order",
            "Arrange {} in descending order",
            "Return {} with the largest first",
            "Put {} in descending order",
        )
        return self.rng.choice(forms).format(self.all_of())

    def _join(self, mapped: bool) -> str:
        rng = self.rng
        how = rng.choice(SEPARATORS[self.asked.separator] + strings("separators", self.asked.separator))
        forms = ["{verb} {items} {how}", "{verb} a string of {items} {how}"]
        if how.startswith(("joined", "glued")):
            forms += [how.replace("joined", "Join {items}").replace("glued", "Glue {items}")] * 3
        if self.asked.separator == "":
            forms += [
                "Concatenate {items}",
                "Join {items} into one string",
                "Build a string from {items}",
                "Make one string of {items}",
            ]
            if self.asked.source.key == "chars":
                forms += [
                    "{verb} {items} as a string",
                    "{verb} only {items}",
                    "{verb} a string with only {items}",
                    "Keep only {items}",
                ]
        return rng.choice(forms).format(verb=rng.choice(ALL_VERBS), items=self.all_of(), how=how)

    def _dict(self, mapped: bool) -> str:
        its, kept = ITS[self.asked.map.key], self.kept(False)
        forms = (
            "a dictionary that maps each {} to its {}",
            "a dict from each {} to its {}",
            "a dictionary with the {1} of each {0}",
            "a dictionary from every {} to its {}",
            "a mapping of each {} to its {}",
        )
        if self.rng.random() < 0.3:
            return self.rng.choice(
                ("Map each {} to its {}", "Map every {} to its {}", "Pair each {} with its {} in a dictionary")
            ).format(kept, its)
        verb = self.rng.choice((*ALL_VERBS, "Build", "Make", "Create", "Build", "Make"))
        return f"{verb} {self.rng.choice(forms).format(kept, its)}"

    def _any(self, mapped: bool) -> str:
        rng, noun, keep, k = self.rng, self.noun, self.asked.keeps[0], self.asked.slots[0]
        pred = self.predicate(keep, k, False)
        if pred.startswith("is ") and rng.random() < 0.12:
            return f"Is any {noun[1]}{self.where} {pred[3:]}?"
        if rng.random() < 0.15:
            return f"Is there {self.one()}?"
        if self.where and self.asked.source.key in ("ints", "words", "chars") and rng.random() < 0.2:
            where, self.where = self.where, ""
            verb = rng.choice(("contains", "has", "holds"))
            what = rng.choice((self.one(), "any " + self.kept(True), "at least one " + self.kept(False)))
            said = f"{self.asked.argument} {verb} {what}"
            self.where = where
            return rng.choice(ALL_TESTS).format(said)
        some = rng.choice(("any", "at least one", "some", "any of the", "at least one of the", "one of the"))
        said = f"{some} {noun[0] if some.endswith('the') else noun[1]}{self.where} {pred}"
        return rng.choice(ALL_TESTS).format(rng.choice((said, said, f"there is {self.one()}")))

    def _all(self, mapped: bool) -> str:
        rng, noun, keep, k = self.rng, self.noun, self.asked.keeps[0], self.asked.slots[0]
        one, many = self.predicate(keep, k, False), self.predicate(keep, k, True)
        if one.startswith("is ") and rng.random() < 0.1:
            return f"Is every {noun[1]}{self.where} {one[3:]}?"
        if many.startswith("are ") and rng.random() < 0.12:
            return rng.choice(
                (f"Are all {noun[0]}{self.where} {many[4:]}?", f"Are all the {noun[0]}{self.where} {many[4:]}?")
            )
        if rng.random() < 0.08:
            return (
                f"Do all {noun[0]}{self.where} {many}?"
                if not many.startswith("are ")
                else f"Are all of the {noun[0]}{self.where} {many[4:]}?"
            )
        said = rng.choice(
            (
                f"every {noun[1]}{self.where} {one}",
                f"all {noun[0]}{self.where} {many}",
                f"each {noun[1]}{self.where} {one}",
                f"all the {noun[0]}{self.where} {many}",
                f"all of the {noun[0]}{self.where} {many}",
                f"every one of the {noun[0]}{self.where} {one}",
            )
        )
        return rng.choice(ALL_TESTS).format(said)

    def _none(self, mapped: bool) -> str:
        rng, noun, keep, k = self.rng, self.noun, self.asked.keeps[0], self.asked.slots[0]
        said = rng.choice(
            (
                f"no {noun[1]}{self.where} {self.predicate(keep, k, False)}",
                f"none of the {noun[0]}{self.where} {self.predicate(keep, k, True)}",
                f"there is no {self.kept(False)}",
                f"there are no {self.kept(True)}",
            )
        )
        return rng.choice(ALL_TESTS).format(said)


def docstring(asked: Asked, rng: random.Random) -> str:
    """A docstring for the task."""
    return dressed(Speaker(asked, rng).sentence(), rng)


def dressed(said: str, rng: random.Random) -> str:
    """The sentence as one writes it: with what comes before and after, in either case, with or without a full stop."""
    said = said.strip().rstrip(".")
    if said.lower().startswith(IMPERATIVES) and rng.random() < 0.12:
        said = f"{rng.choice(strings('openings'))} {said[0].lower()}{said[1:]}"
    if rng.random() < 0.06 and "'" not in said:
        words = said.split(" ")
        words.insert(rng.randrange(len(words) + 1), rng.choice(strings("fillers")))
        said = " ".join(words)
    if rng.random() < 0.8:
        said = ". ".join(part[:1].upper() + part[1:] for part in said.split(". "))
    elif rng.random() < 0.5:
        said = said[0].lower() + said[1:]
    end = "" if said.endswith("?") else "."
    before, after = (*NEUTRAL_BEFORE, *strings("before")), (*NEUTRAL_AFTER, *strings("after"))
    draw = rng.random()
    if draw < 0.08:
        link = rng.choice((". ", ". ", ": ", ", ", " - "))
        return f"{rng.choice(before)}{link}{said}{end}"
    if draw < 0.2:
        form = rng.choice(
            ("{said}{end} {after}.", "{said}{end} {after}.", "{said} ({low}){end}", "{said}, {low}{end}")
        )
        said_after = rng.choice(after)
        form = form if end else "{said} {after}."
        return form.format(said=said, end=end, after=said_after, low=said_after[0].lower() + said_after[1:])
    if draw < 0.23 and end:
        return said + rng.choice((", please", " please", ", please.", ", thanks", "!", " :)"))
    return said if not end or rng.random() < 0.35 else f"{said}."


AGGREGATE_NAMES = {
    "sum": ("sum", "total", "add", "sum_of", "add_up", "total_of"),
    "product": ("product", "multiply", "prod", "product_of"),
    "count": ("count", "num", "how_many", "number_of", "count_of", "n"),
    "max": ("max", "largest", "biggest", "highest", "greatest", "maximum"),
    "min": ("min", "smallest", "lowest", "least", "minimum"),
    "list": ("get", "list", "find", "only", "all", "keep", "filter", "select", "pick"),
    "set": ("set_of", "unique", "set", "distinct"),
    "distinct": ("count_distinct", "num_unique", "count_unique", "distinct", "how_many_different"),
    "sortedset": ("sorted_unique", "unique_sorted", "distinct_sorted", "tidy", "sorted_set"),
    "sorted": ("sorted", "sort", "order", "ordered", "ascending"),
    "descending": ("sort_desc", "descending", "reverse_sorted", "high_to_low"),
    "first": ("first", "find_first", "find", "get_first"),
    "join": ("join", "concat", "join_all", "string_of", "glue"),
    "any": ("any", "has", "has_any", "contains", "exists", "some"),
    "all": ("all", "all_are", "every", "check_all", "only"),
    "none": ("no", "none", "has_no", "without"),
    "dict": ("map", "dict_of", "lookup", "table_of", "by"),
    "longest": ("longest", "find_longest"),
    "shortest": ("shortest", "find_shortest"),
}
GENERIC = (
    "solve",
    "f",
    "compute",
    "process",
    "run",
    "task",
    "helper",
    "answer",
    "func",
    "do_it",
    "calc",
    "result",
    "g",
    "work",
    "solution",
)


def vague_name(rng: random.Random) -> str:
    """A function's name that says nothing of what it does."""
    return rng.choice((*GENERIC, *strings("vague_names"))) if rng.random() < 0.5 else made_up_name(rng)


def function_name(asked: Asked, rng: random.Random) -> str:
    """ "count_even", "squares_total", now and then "solve"."""
    if rng.random() < 0.35:
        return vague_name(rng)
    head = rng.choice(AGGREGATE_NAMES[asked.aggregate])
    middle = [rng.choice(keep.names) for keep in asked.keeps[:1] if rng.random() < 0.85]
    made = [rng.choice(asked.map.names)] if asked.map.names and rng.random() < 0.85 else []
    tail = [rng.choice((asked.argument, asked.source.nouns[0][0]))] if rng.random() < 0.3 else []
    parts = (
        rng.choice(([head, *middle, *made], [head, *made, *middle], [*middle, *made, head], [*made, *middle, head]))
        + tail
    )
    name = "_".join(parts)
    return f"{name}_{asked.source.nouns[0][0]}" if name in (asked.argument, *RESERVED) else name


RESERVED = (
    "sum",
    "max",
    "min",
    "list",
    "set",
    "sorted",
    "any",
    "all",
    "map",
    "filter",
    "len",
    "abs",
    "str",
    "is",
    "not",
    "in",
    "for",
    "n",
    "from",
)
BY_KEY = {source.key: source for source in SOURCES}
