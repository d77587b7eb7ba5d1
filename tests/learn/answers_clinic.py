"""Answers to the bug clinic: scripts that are sound in other ways, and scripts that are not.

`script(diagnosis, ...)` is a sound script with the parts given in place of its own. All ten
exercises are judged by one battery, so the first gets all answers, those of another kind most, and
the others a few in turn and their own fault; each has its own diagnosis.
"""

import copy
from dataclasses import replace

import numpy as np

import minilora as ml
from minilora.learn.clinic import NAMED
from minilora.learn.examination import CONFIG, CONFIG_WITH_HEAD, FAULTS, Adam
from minilora.lora import lora_layers
from minilora.text.windows import IGNORE_INDEX


def _loss(model, ids, targets):
    return ml.cross_entropy(model(ids), targets)


def script(
    diagnosis, config=CONFIG, rate=0.01, rates=None, seed=0, start=None, early=False, loss=_loss,
    ship=None, take=lambda batches: batches, result=lambda diagnosis, model: (diagnosis, model),
    base=lambda load: load(), trains=lambda model: model.trainable_parameters(),
):  # fmt: skip
    def run(load, batches, chart):
        model = base(load)
        if early:
            optimizer = Adam(model.trainable_parameters(), lr=rate, chart=chart)
        ml.add_adapter(model, config, rng=np.random.default_rng(seed))
        if start:
            start(model)
        if not early:
            optimizer = Adam(trains(model), lr=rate, chart=chart)
        for i, (ids, targets) in enumerate(take(batches)):
            if rates:
                optimizer.lr = rates[i]
            loss(model, ids, targets).backward()
            optimizer.step()
        return result(diagnosis, ship(model, load) if ship else model)

    return run


def _merged(model, load):
    ml.merge_and_unload(model)
    return model


def _merged_beside(model, load):
    ml.merge_adapter(model)
    return model


def _into_a_fresh_base(model, load, times=1.0):
    shipped = load()
    for path, layer in lora_layers(model).items():
        W = shipped.get_submodule(path).weight
        W.data = W.data + np.float32(times) * layer.delta_weight(layer.active)
    if "head.weight" in (names := dict(shipped.named_parameters())):
        names["head.weight"].data = model.head.weight.data.copy()
    return shipped


def _by_its_state(model, load, leave=lambda name: False):
    """A and B, and what else was trained, into a fresh base with a fresh adapter."""
    shipped, head = load(), "head.weight" in dict(model.named_parameters())
    config = (
        CONFIG_WITH_HEAD if head else replace(CONFIG, r=_rank(model), lora_alpha=4 * _rank(model))
    )
    targets = sorted({path.rpartition(".")[2] for path in lora_layers(model)})
    ml.add_adapter(shipped, replace(config, target_modules=targets), rng=np.random.default_rng(1))
    state = {name: array for name, array in model.state_dict().items() if not leave(name)}
    shipped.load_state_dict(shipped.state_dict() | state)
    return shipped


def _rank(model):
    layer = next(iter(lora_layers(model).values()))
    return layer.adapters[layer.active].A.shape[1]


def _rows_that_count(model, ids, targets):
    keep = np.flatnonzero(targets.ravel() != IGNORE_INDEX)
    logits = model(ids)
    return ml.cross_entropy(logits.reshape(-1, logits.shape[-1])[keep], targets.ravel()[keep])


def _by_hand(model, ids, targets, between=lambda x: x):
    x = model.tok_embed(ids) + model.pos_embed(np.arange(ids.shape[1]))
    for block in model.layers:
        x = block(between(x), None, None)
    x = model.norm(x)
    tied = "head.weight" not in dict(model.named_parameters())
    return ml.cross_entropy(
        x @ model.tok_embed.weight.swapaxes(0, 1) if tied else model.head(x), targets
    )


def _second(load):
    """Another base is loaded first, to ship what was trained in it, or for its names."""
    load()
    return load()


def _right(letter, config=CONFIG):
    return [
        script(letter, config),
        script(letter.lower(), config, seed=5),
        script(FAULTS[letter], config, rate=0.015),
        script(f" {letter}\n", replace(config, r=8, lora_alpha=32)),
        script(letter, config, ship=_merged),
        script(letter, config, ship=_merged_beside),
        script(letter, config, ship=_into_a_fresh_base),
        script(letter, config, ship=_by_its_state),
        script(letter, config, loss=_rows_that_count),
        script(letter, config, loss=_by_hand),
        script(letter, config, base=_second),
        script(letter, config, rates=[0, 0.008, 0.016, 0.016, 0.012, 0.008, 0.004, 0]),
        script(letter, replace(config, use_rslora=True, lora_alpha=8), result=lambda *a: list(a)),
    ]


def _without_adapter(letter):
    """Full fine-tuning of the matrices."""

    def run(load, batches, chart):
        model = load()
        for name, p in model.named_parameters():
            p.requires_grad = name.endswith(("_proj.weight", "head.weight"))
        optimizer = Adam(model.trainable_parameters(), lr=0.003, chart=chart)
        for ids, targets in batches:
            _loss(model, ids, targets).backward()
            optimizer.step()
        return letter, model

    return run


def _zero_A(model):
    for layer in lora_layers(model).values():
        layer.adapters["default"].A.data *= 0


def _trains_too(end):
    def start(model):
        for name, p in model.named_parameters():
            if name.endswith(end):
                p.requires_grad = True

    return start


def _twice(model, load):
    for layer in lora_layers(model).values():
        layer.base.weight.data = layer.base.weight.data + layer.delta_weight("default")
    return model


def _spare(model):
    ml.add_adapter(model, CONFIG, "spare", rng=np.random.default_rng(0))


def _the_unused(model, load):
    ml.set_adapter(model, "default")
    return model


def _next_symbols(model, ids, targets):
    return ml.cross_entropy(model(ids), np.roll(ids, -1, axis=1))


def _no_answer(model, ids, targets):
    """The mask the wrong way round."""
    return ml.cross_entropy(
        model(ids), np.where(targets < 0, np.roll(ids, -1, axis=1), IGNORE_INDEX)
    )


def _half_the_prompts(model, ids, targets):
    return 0.5 * (_loss(model, ids, targets) + _next_symbols(model, ids, targets))


def _one_off(model, ids, targets):
    """Each target one place too early."""
    return _loss(model, ids, np.roll(targets, -1, axis=1))


def _without_the_end(model, ids, targets):
    return _loss(model, ids, np.where(targets == 0, IGNORE_INDEX, targets))


def _without_the_first(model, ids, targets):
    is_first = np.cumsum(targets != IGNORE_INDEX, axis=1) == 1
    return _loss(model, ids, np.where(is_first, IGNORE_INDEX, targets))


def _alike(model):
    """All columns of A alike: r directions that are one."""
    for layer in lora_layers(model).values():
        layer.adapters["default"].A.data[:] = 0.1


def _only(factor):
    def trains(model):
        layers = lora_layers(model).values()
        return [getattr(layer.adapters["default"], factor) for layer in layers]

    return trains


def _cut(model, ids, targets):
    return _by_hand(model, ids, targets, lambda x: x.detach())


def _faulty(letter, config):
    """The diagnosis is right, and the script has one of these faults."""
    ships_four = lambda model, load: _into_a_fresh_base(model, load, times=4)  # noqa: E731
    return {
        "C": (script(letter, config, start=_zero_A), None),
        "F": (script(letter, config, early=True), None),
        "B": (script(letter, config, rate=0.001), None),
        "H": (script(letter, config, loss=_cut), None),
        "J": (script(letter, config, loss=_next_symbols), "the loss on the prompt fell"),
        "K": (script(letter, config, ship=ships_four), None),
        "L": (script(letter, config, ship=_twice), None),
        "M": (script(letter, config, start=_spare, ship=_the_unused), None),
        "D": (script(letter, replace(config, init_lora_weights=False)), "before the first step"),
        "E": (_without_adapter(letter), "is of full rank"),
    }


def _wrong(letter, config=CONFIG):
    another = "A" if letter != "A" else "B"
    return [
        (script(another, config), "that was not the fault"),
        (script("?", config, start=_zero_A), "the diagnosis is '?'"),
        (script(another, config, start=_zero_A), f"{another} is not the fault, and"),
        (script(letter, config, result=lambda diagnosis, model: model), "it returns Transformer"),
        (script(letter, config, take=lambda batches: batches[:6]), "it made 6 steps"),
    ]


def _more(letter, config):
    return [
        *_faulty(letter, config).values(),
        (script(letter, config, rate=0.3), None),
        (script(letter, config, rate=0.03), "as in a sound run"),
        (script(letter, config, start=_alike), "is of rank 1"),
        (script(letter, config, loss=_one_off), None),
        (script(letter, config, loss=_without_the_end), None),
        (script(letter, config, base=lambda load: copy.deepcopy(load())), "a model that load()"),
        (script(letter, config, rates=[0.0] * 6 + [0.01] * 2), "6 of the 8 steps moved next to"),
        (script(letter, config, loss=_no_answer), None),
        (script(letter, config, start=_trains_too("_norm.bias")), "_norm.bias has changed"),
        (script(letter, config, ship=lambda model, load: load()), None),
        (script(letter, config, ship=lambda model, load: model.state_dict()), "it ships a dict"),
        (script(letter, config, result=lambda diagnosis, model: (model, diagnosis)), None),
    ]


LETTERS = dict(zip((f"script_{i}" for i in range(1, 11)), "CKFJBILHMN", strict=True))
CONFIGS = {"script_6": NAMED, "script_10": CONFIG_WITH_HEAD}
RIGHT, WRONG = {}, {}
for turn, (name, letter) in enumerate(LETTERS.items()):
    config = CONFIGS.get(name, CONFIG)
    right, wrong, more = _right(letter, config), _wrong(letter, config), _more(letter, config)
    if name == "script_1":
        RIGHT[name], WRONG[name] = right, wrong + more
    elif name in CONFIGS:
        RIGHT[name], WRONG[name] = right[::2], wrong[:1] + more
    else:
        own = _faulty(letter, config)[letter]
        others = [pair for pair in more if pair[0] is not own[0]]
        RIGHT[name] = [right[turn % len(right)]]
        WRONG[name] = [wrong[0], wrong[1 + turn % 4], own, others[turn % len(others)]]

WRONG["script_3"].append((script("F", trains=_only("B")), "A is the same after every step"))
WRONG["script_4"] += [
    (script("J", loss=_half_the_prompts), None),
    (script("J", loss=_one_off), None),
    (script("J", loss=_without_the_end), None),
    (script("J", loss=_without_the_first), "symbol 1 of 4"),
]
WRONG["script_5"].append((script("B", rate=0.03), "as in a sound run"))
RIGHT["script_5"].append(script("B", replace(CONFIG, lora_alpha=160), rate=0.001))
RIGHT["script_6"].append(script("I"))  # all layers are more than was asked for
WRONG["script_6"] += [
    (script("I", replace(CONFIG, target_modules=["down_proj"])), None),
    (script("I", replace(CONFIG, target_modules=["q_proj", "v_proj", "up_proj"])), None),
    (script("I", replace(CONFIG, target_modules=["q_proj", "k_proj", "down_proj"])), None),
]
WRONG["script_10"] += [
    (script("N", CONFIG), None),
    (script("N", CONFIG_WITH_HEAD, ship=lambda *a: _by_its_state(*a, lambda n: "head" in n)), None),
    (script("N", CONFIG_WITH_HEAD, ship=lambda *a: _by_its_state(*a, lambda n: ".B" in n)), None),
]

_OTHER_DRAW = "another draw of A: a script may choose it"
EQUIVALENT = {
    name: {f"line {line}: 0 -> 1": _OTHER_DRAW}
    for name, line in {**dict.fromkeys(LETTERS, 4), "script_6": 5, "script_10": 5}.items()
}
EQUIVALENT["script_1"]["line 7: adapter.B.data = np.zeros_like(adapter.B.data) -> pass"] = (
    "B is zero already"
)
EQUIVALENT["script_7"]["line 9: ml.merge_and_unload(model) -> pass"] = (
    "not merged it computes the same"
)
EQUIVALENT["script_9"] |= {
    "line 5: ml.add_adapter(model, CONFIG, 'sort', rng=np.random.default_rng(0)) -> pass": (
        "the other adapter plays no part"
    ),
    "line 5: 0 -> 1": "the same",
    "line 11: ml.set_adapter(model, 'reverse') -> pass": "it is the active one already",
}
EQUIVALENT["script_10"]["line 13: part in name -> part not in name"] = (
    "the whole model is in the file then"
)
