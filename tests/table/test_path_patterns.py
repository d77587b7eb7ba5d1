"""Claims about patterns of paths: they mean what `re` means, and none takes long."""

import random
import re

import pytest

from minilora.path_patterns import match, match_end, match_whole, require_patterns
from minilora.system.errors import UsageError

PATH = "model.layers.12.self_attn.q_proj"
OF_A_TRAINER = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|mlp|ffn).*?(?:k_proj|v_proj|q_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:k_proj|v_proj|q_proj)))"
)


@pytest.mark.parametrize(
    ("pattern", "whole", "end"),
    [
        ("q_proj", False, True),
        (r"self_attn\.q_proj", False, True),
        (r".*\.q_proj", True, True),
        (r".*\.(q|v)_proj", True, True),
        (r"^model.layers.12.self_attn.q_proj", True, True),
        (r"^q_proj", False, False),
        ("self.attn.q.proj", False, True),
        (r"self\.attn", False, False),
        (r"elf_attn\.q_proj", False, False),
        (PATH.replace(".", r"\."), True, True),
        (r"layers\.\d+\.self_attn\.[qv]_proj$", False, True),
        (r"(?!.*visual).*self_attn.*", True, True),
        (r"(?!.*self_attn).*_proj", False, True),
        (r"(?i).*\.Q_PROJ", True, True),
        (r".*(?<=self_attn)\.q_proj", True, True),
        (r".*\bself_attn\b.*", True, True),
        (r"(\w+\.)*q_proj", True, True),
        (r"layers\.(1[0-9])\..*", False, True),
        (OF_A_TRAINER, True, True),
        ("", False, False),
    ],
)
def test_patterns_that_people_write_mean_what_they_mean_in_peft(pattern, whole, end):
    require_patterns([pattern])
    assert match_whole(pattern, PATH) is whole is (re.fullmatch(pattern, PATH) is not None)
    in_peft = re.match(rf"(.*\.)?({pattern})$", PATH) if "(?i)" not in pattern else end
    assert match_end(pattern, PATH) is end is bool(in_peft)


def a_pattern(r, depth=0):
    def inner():
        return a_pattern(r, depth + 1)

    kind = r.choice(["one", "two", "either", "again", "ahead"]) if depth < 4 else "one"
    if kind == "one":
        return r.choice(["a", "b", ".", r"\.", "[ab]", "[^a]", r"\d", r"\w", r"\b", "^", "$", "c"])
    if kind == "two":
        return inner() + inner()
    if kind == "either":
        return f"(?:{inner()}|{inner()})"
    if kind == "ahead":
        return f"(?{r.choice('=!')}{inner()})"
    return f"(?:{inner()}){r.choice(['*', '+', '?', '*?', '{2}', '{1,3}', '{0,2}?'])}"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_random_patterns_match_what_re_matches(seed):
    r, matched = random.Random(seed), 0
    for _ in range(500):
        pattern, path = a_pattern(r), "".join(r.choices("ab.1", k=r.randrange(1, 6)))
        require_patterns([pattern])
        expected = re.fullmatch(pattern, path) is not None
        assert match_whole(pattern, path) is expected, (pattern, path)
        expected_end = re.fullmatch(rf"(.*\.)?({pattern})", path) is not None
        assert match_end(pattern, path) is expected_end, (pattern, path)
        matched += expected
    assert matched > 20


@pytest.mark.parametrize("pattern", ["(a|aa)+b", "((a{1,10}){1,10}){1,10}b"])
def test_a_pattern_that_would_take_re_for_ever_is_refused_when_it_takes_long(pattern):
    require_patterns([pattern])
    sentence = "takes too long to compare with 'aaa.*name the modules in full"
    with pytest.raises(UsageError, match=sentence) as raised:
        match_whole(pattern, "a" * 60)
    assert len(str(raised.value)) < 300
    assert match_whole(pattern, "a" * 60 + "b")


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", ".*" * 12 + "b", "(((a*)*)*)*b"])
def test_a_pattern_that_re_alone_would_take_long_for_is_answered(pattern):
    require_patterns([pattern])
    assert not match_whole(pattern, "a" * 50)
    assert match_whole(pattern, "a" * 20 + "b")


@pytest.mark.parametrize(
    ("patterns", "sentence"),
    [
        (["("], "is not a regular expression: missing"),
        (["a{99999999999999999999}"], "is not a regular expression: the repetition number"),
        ([f"a{{{'9' * 4500}}}"], "is not a regular expression: Exceeds the limit"),
        (["(" * 2000 + "a*" + ")" * 2000], "nested too deep for a pattern"),
        (["(" * 400 + "a*" + ")*" * 400], "nested too deep for a pattern"),
        ([r"(a)\1"], "has a reference back, which is not supported in a pattern"),
        (["(?P<a>b)(?P=a)"], "has a reference back"),
        (["(a)?(?(1)b|c)"], "has a condition"),
        (["(?a:b)"], "has the flag a"),
        (["a*+"], "has a repetition that gives nothing back"),
        (["(?>a)"], "has a repetition that gives nothing back"),
        (["(?:q_proj){e<=2}"], "has braces that do not count"),
        (["[[:alpha:]]"], "has the name of a class of letters"),
        (["(a?){4000000000}b"], "counts too far; the product .* may be 1,000 at most"),
        (["((a{1,100}){1,100}){1,100}b"], "counts too far"),
        (["[ab]" * 2000], "have 8,000 characters; .* name the modules in full"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_pattern_that_is_not_matched_is_refused_in_a_sentence(patterns, sentence):
    with pytest.raises(UsageError, match=sentence) as raised:
        require_patterns(patterns)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(("pattern", "path"), [(r".*\w", "x²"), ("(?i)i", "ı"), ("é+", "e")])
def test_beyond_ascii_nothing_but_names_is_matched(pattern, path):
    require_patterns([pattern])
    with pytest.raises(UsageError, match="letters beyond ASCII: name the modules in full"):
        match_whole(pattern, path)
    assert match_whole("schicht.über", "schicht.über") and match_end("über", "schicht.über")


def test_paths_in_full_are_as_many_as_one_likes():
    paths = [f"model.layers.{i}.self_attn.q_proj" for i in range(1_000)]
    paths += [path.replace(".", r"\.") for path in paths]
    require_patterns(paths)
    assert [path for path in paths if match_end(path, paths[7])] == [paths[7], paths[1_007]]


def test_a_list_has_names_and_a_string_is_a_pattern_of_the_whole():
    assert match(["v_proj", "q_proj"], PATH) and match([PATH], PATH) and match(".*q_proj", PATH)
    assert not match(["proj", "layers"], PATH) and not match("q_proj", PATH)
