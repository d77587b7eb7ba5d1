"""A chat, and templates that write it: ChatML, as SmolLM2 has it, the first Llama's, and one of our
own with whatever a template may do.
"""

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}\n"
)
CHAT = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "What is LoRA? <b>&amp;</b> é 😀 'quoted' \"double\""},
    {"role": "assistant", "content": "  A low-rank change.  \n"},
    {"role": "user", "content": "Of what?\n\n{{ messages }} {% raw %}"},
]
LLAMA = """
{%- if messages[0]['role'] == 'system' %}
    {%- set system, rest = messages[0]['content'] | trim, messages[1:] %}
{%- else %}
    {%- set system, rest = '', messages %}
{%- endif %}
{{- bos_token }}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' }}
        {{- '<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' if loop.first and system else '' }}
        {{- message['content'].strip() ~ ' [/INST]' }}
    {%- else %}
        {{- ' ' ~ message.content | trim ~ ' ' ~ eos_token }}
    {%- endif %}
{%- endfor %}
"""
COMPLICATED = """
{%- set ns = namespace(turn=0, roles=[]) -%}
{%- macro shown(message, width=2) -%}
    {%- set text = message.content | replace('\\n', ' ') | trim -%}
    {%- for word in text.split(' ') if word -%}
        {{- word | upper if loop.index is divisibleby(3) else word -}}
        {%- if not loop.last %} {% endif -%}
        {%- if loop.index0 >= 40 -%}{%- break -%}{%- endif -%}
    {%- endfor -%}
{%- endmacro -%}
{%- for message in messages %}
    {%- set ns.turn = ns.turn + 1 %}
    {%- set ns.roles = ns.roles + [message.role] %}
    {%- generation %}{{ ns.turn }}/{{ messages | length }} {{ shown(message) }}{% endgeneration %}
    {{ '-' * 8 }}{{ message | tojson }}
{% endfor %}
{{ ns.roles | unique | join(', ') }} {{ dict(a=1, b=[1, 2.5, none, true]) | tojson(indent=2) }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | length }}
{{ range(3) | list }} {{ tools is none }} {{ documents is defined }} {{ strftime_now('%%') }}
{{ 'a b'.title() }} {{ '  x'.lstrip() }} {{ ['x', 'y'] | last }} {{ messages[-1].role in ns.roles }}
{{ {'k': 1}.items() | list }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 2 * 3.5 }} {{ 'ab' * 2 }} {{ [1] * 2 }}
{% if add_generation_prompt %}assistant:{% endif %}
"""
TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "complicated": COMPLICATED}
