"""Claims about chat templates: they write what transformers would, and can do nothing else."""

import pytest
from chats import CHAT, CHATML, LLAMA

from minilora.system.errors import UsageError
from minilora.tokens.chat import render

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}


def write(template, messages=CHAT, **variables):
    return render(template, messages, VARIABLES | variables, "the template of M")


def test_a_chat_is_written_as_its_template_says():
    assert write(CHATML, CHAT[:1]) == (
        "<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>assistant\n"
    )
    said = write(LLAMA)
    assert said.startswith("<s>[INST] <<SYS>>\nYou are terse.\n<</SYS>>\n\nWhat is LoRA? <b>")
    assert said.endswith(
        " [/INST] A low-rank change. </s>[INST] Of what?\n\n{{ messages }} {% raw %} [/INST]"
    )


def test_what_stands_in_a_message_is_never_part_of_the_program():
    assert "{{ messages }} {% raw %}" in write(CHATML)


def test_a_template_that_refuses_messages_says_why():
    twice = [CHAT[1], CHAT[1]]
    with pytest.raises(
        UsageError, match="the template of M refuses these messages: Roles must alt"
    ):
        write(LLAMA, twice)


# What each would do if it could: run code, never end, fill the memory.
HOSTILE = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ ''['x'.join(['__clas', 's__'])].y }}",
    "{{ ''|attr('__class__') }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self._TemplateReference__context.x }}",
    "{{ raise_exception.__globals__.x }}",
    "{{ messages.append(1) }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{0.__class__}'.format_map({}) }}",
    "{{ dict.__subclasses__() }}",
    "{{ dict.mro() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{% for i in range(10**12) %}{% endfor %}",
    "{% for i in range(1000000000000) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{% set f = range(99999)|list %}{% for i in f %}{% set g = f|list %}{% endfor %}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "{{ 10**10**10 }}",
    "{{ 9**9 }}",
    "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{{ 'a' * 10000000000 }}",
    "{{ 10000000000 * 'a' }}",
    "{{ [0] * 10000000000 }}",
    "{{ -5 * 'a' }}{{ 'a' * -10000000000 }}{{ 'a' * 100000000 }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%10000000000d'|format(1) }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ 'a'.ljust(10000000000) }}",
    "{{ 'a'|center(10000000000) }}",
    "{{ 'a'.zfill(10000000000) }}",
    "{{ 'a\nb'|indent(10000000000) }}",
    "{{ (1).to_bytes(10000000000, 'big') }}",
    "{{ 1.5|round(10000000000) }}",
    "{{ lipsum(n=100000) }}",
    "{{ [1]|tojson(indent=10000000000) }}",
    "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
    "{{ n.s }}",
    "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
    "{{ n.s|tojson }}",
    "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
    "{{ n.s|string }}",
    "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s %}{{ n.s }}{{ n.s }}"
    "{% endset %}{% endfor %}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s|replace('a', n.s) %}"
    "{% endfor %}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s.replace('a', n.s) %}"
    "{% endfor %}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s|list|join(n.s) %}"
    "{% endfor %}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s.join(n.s|list) %}"
    "{% endfor %}",
    "{% set s = 'a' * 900000 %}{% for i in range(99999) %}{{ s.upper()|length }}{% endfor %}",
    "{% set s = 'a' * 900000 %}{% for i in range(99999) %}{{ s|upper|length }}{% endfor %}",
    "{% set s = 'a' * 900000 %}{{ s }}{{ s }}",
    "x" * 2_000_000,
]  # fmt: skip
BROKEN = [
    "{{", "{% for %}", "{{ nothing.at.all }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ none() }}",
    "{{ messages['x'].y }}", "{{" + "(" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("template", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_template_ends_in_one_sentence(template):
    with pytest.raises(UsageError) as caught:
        write(template)
    sentence = str(caught.value)
    assert sentence.startswith("the template of M ") and len(sentence.splitlines()) == 1
    assert "is not safe (" in sentence or "does not work (" in sentence


@pytest.mark.parametrize("template", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_template_is_one_sentence(template):
    with pytest.raises(
        UsageError, match=r"(?s)the template of M does not work \(.+\); copy or download"
    ):
        write(template)


def test_what_one_template_has_spent_the_next_does_not_lack():
    for _ in range(50):
        assert write("{% for i in range(9000) %}{% endfor %}x") == "x"
