# %% [markdown]
# # 01 · Autograd from scratch
#
# **The question.** A model is trained with the gradient of its loss: how does a program know it,
# for any formula that it computes?
#
# **You will be able to**
#
# - say what an operation must remember so that a gradient can flow back through it;
# - walk a computation backward, so that every value gets its gradient in one pass;
# - derive the two gradients of a matrix product, and undo broadcasting;
# - prove a gradient right or wrong without knowing where it comes from;
# - build an *engine*, a program that does all this, train a network with it, and say what it saves
#   when a weight is frozen, which is where LoRA begins.
#
# **Time:** 5 seconds to run, 25 minutes to read, 125 with the exercises. **Before this:** you know
# NumPy arrays, the matrix product, and derivatives with the chain rule. **Words:** the
# [glossary](GLOSSARY.md) has them all.

# %%
import inspect
import textwrap
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

import minilora as ml
from minilora import ops
from minilora.analysis.profiler import profile
from minilora.learn import check
from minilora.system.errors import StateError
from minilora.tensor import record as minilora_record

# %% [markdown]
# ## A picture
#
# Training makes a number smaller, the *loss* L, by changing other numbers, the *parameters*. For
# that it must know of each parameter: if it grows a little, how fast does L grow? This rate is the
# *gradient* of L with respect to the parameter. Here the parameters are a, b and c, and L is
# computed in three operations. This picture of a computation is called its *graph*.

# %%
ml.plots.show(
    ml.plots.graph_picture(a=2, b=-3, c=10),
    "A graph of L = (a b + c) a with a = 2, b = -3 and c = 10. Values are computed "
    "from left to right: e = -6, d = 4, L = 8. Gradients flow back: L 1, d 2, e 2, "
    "c 2, b 4, and a -2.",
)

# %% [markdown]
# In black, from left to right: the *forward pass*, which computes the values. In purple, from right
# to left: the *backward pass*, which computes the gradients.
#
# - L grows by 1 when L grows by 1, so its own gradient is 1.
# - L = d a. If d grows by h, then L grows by a h = 2 h. So d has the gradient 2.
# - d = e + c. What e gains, d gains too. So e has d's gradient, and so has c.
# - e = a b. If b grows by h, then e grows by 2 h, and L by 2 times that: b has the gradient 4.
# - a is used twice. Through e it has an effect of −6, through L directly one of 4. Both happen at
#   once, so they add up to −2.
#
# Two checks, with no theory at all: move a, or b, a little, and see what L does.


# %%
def L_of(a: float, b: float, c: float) -> float:
    return (a * b + c) * a


h = 1e-6
print("slope of L in a:", round((L_of(2 + h, -3, 10) - L_of(2, -3, 10)) / h, 3))
print("slope of L in b:", round((L_of(2, -3 + h, 10) - L_of(2, -3, 10)) / h, 3))

# %% [markdown]
# So why not always do it like this? Because it takes one more forward pass *for each parameter*. A
# model of a million parameters would need a million of them for one step of training. The backward
# pass gives all gradients at once, for about the price of two forward passes.
#
# ## The formula
#
# A value x may be used by several operations, with results $z_1, z_2, \dots$ The chain rule says
#
# $$\frac{dL}{dx} = \sum_i \frac{dL}{dz_i} \, \frac{\partial z_i}{\partial x}.$$
#
# We write g for the gradient of a result, dL/dz, which is known when the walk arrives there. What
# an operation has to contribute is a function for each of its inputs,
#
# $$g \;\mapsto\; g \, \frac{\partial z}{\partial x},$$
#
# from the gradient of its result to the gradient of that input. Such a function is called a *vjp*,
# for vector-Jacobian product (the Jacobian is the matrix of all derivatives of all outputs; it is
# never written down). For z = x + y both vjps are `lambda g: g`.

# %% [markdown]
# ### Exercise 1.1: the vjps of a product
#
# *Difficulty 1 of 5, 4 minutes.* For z = x y, entry by entry, return two functions: the first takes
# g, the gradient of z, and gives the gradient of x; the second one gives that of y. Replace the
# `...`, then run both cells.


# %%
def product_vjps(x: np.ndarray, y: np.ndarray):
    """(to_x, to_y): each takes g, of the shape of x * y.   x, y: of one shape"""
    # SOLUTION
    return lambda g: g * y, lambda g: g * x
    # END SOLUTION


# %%
check.product_vjps(product_vjps)

# %% [markdown]
# ## A value that remembers
#
# To walk back, a program must know how each value was made. So every value gets a node, with an
# *edge* to each value that it was computed from: a pair of that parent and its vjp. Here is the
# graph of the picture, written out by hand. (With `eq=False` two nodes are equal only if they are
# the same one, whatever they hold; so a node can be a key of a dictionary.)


# %%
@dataclass(eq=False)
class Node:
    data: np.ndarray
    edges: list  # of pairs (parent, vjp)


a, b, c = Node(np.array(2.0), []), Node(np.array(-3.0), []), Node(np.array(10.0), [])
e = Node(a.data * b.data, [(a, lambda g: g * b.data), (b, lambda g: g * a.data)])
d = Node(e.data + c.data, [(e, lambda g: g), (c, lambda g: g)])
L = Node(d.data * a.data, [(d, lambda g: g * a.data), (a, lambda g: g * d.data)])

(_, to_d), (_, to_a) = L.edges
print("L =", L.data)
print("back along its edges goes", to_d(1.0), "to d and", to_a(1.0), "to a")

# %% [markdown]
# a, b and c have no edges: they were given and not computed. Such nodes are called *leaves*.
#
# The walk starts at L with the gradient 1. A node sends its gradient along all its edges, through
# the vjps, and a parent adds up what it receives. One thing is easily done wrong. When may a node
# send? Not as soon as something arrives: a node that is used twice has then got one half, and would
# pass on too little. It has to wait until *all* nodes that use it have sent. So the nodes are put
# in an order first, in which each one stands after all its parents: a *topological order*. The walk
# goes through that order from its end.
#
# How to find it: go to a node's parents first, and write the node down when they are done. As a
# recursive function that is three lines; but the graph of a real model is thousands of nodes deep,
# and Python gives up at about a thousand nested calls. A list that serves as a stack has no limit.

# %% [markdown]
# ### Exercise 1.2: the walk back
#
# *Difficulty 4 of 5, 25 minutes.* Write the backward pass of a whole graph. Return a dictionary
# with the gradient of every node from which root was computed, and of root itself, whose gradient
# is 1. Call each vjp once; do not recurse.


# %%
def gradients(root) -> dict:
    """{node: dL/d(node)}, where L is root.   node.edges: pairs (parent, vjp)"""
    # SOLUTION
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent, _ in node.edges)
    found = {root: np.array(1.0)}
    for node in reversed(order):
        for parent, vjp in node.edges:
            new = vjp(found[node])
            found[parent] = found[parent] + new if parent in found else new
    return found
    # END SOLUTION


# %%
check.gradients(gradients)

# %% [markdown]
# Now on the graph from above. (Until you solve the exercise, this shows None.)

# %%
found = gradients(L) or {}
print({name: found.get(node) for name, node in {"a": a, "b": b, "c": c}.items()})

# %% [markdown]
# ## Arrays: broadcasting
#
# Everything so far holds for arrays too, entry by entry, with one addition. NumPy *broadcasts*: in
# `h + bias`, with h of shape (4, 3) and a *bias*, a row that is added, of shape (3,), the bias is
# used four times, once for each row of h. A value that is used several times gets the sum of all
# gradients. So the gradient of the bias is the sum of g over the rows; an array of shape (1, 3) or
# a single number is treated alike.

# %%
g = np.arange(12.0).reshape(4, 3)
print(f"the gradient of h + bias\n{g}")
print(f"so the gradient of the bias is\n{g.sum(axis=0)}")

# %% [markdown]
# ### Exercise 1.3: undo broadcasting
#
# *Difficulty 3 of 5, 12 minutes.* g has the shape of a result, and a parent of the given shape was
# broadcast to it. Return the parent's gradient, in the parent's shape. NumPy's rule: shapes are
# aligned at their right ends, missing axes are added on the left, and an axis of length 1 is
# repeated.


# %%
def unbroadcast(g: np.ndarray, shape: tuple) -> np.ndarray:
    """Sum g over the axes along which an array of this shape was repeated."""
    # SOLUTION
    for _ in range(g.ndim - len(shape)):
        g = g.sum(axis=0)
    for axis, length in enumerate(shape):
        if length == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g
    # END SOLUTION


# %%
check.unbroadcast(unbroadcast)

# %% [markdown]
# ## The matrix product
#
# Nearly all the work of a language model is y = x W: n rows x of d_in numbers, and a matrix W with
# d_in rows and d_out columns. An entry of the result is
#
# $$y_{ij} = \sum_k x_{ik} W_{kj}.$$
#
# How much does L change with $x_{ik}$? It is used by every entry of row i of y, each time with the
# factor $W_{kj}$. The effects add up:
#
# $$\frac{dL}{dx_{ik}} = \sum_j g_{ij} W_{kj}.$$
#
# That is a matrix product again: row i of g with row k of W. The same way leads from $W_{kj}$ to
# its gradient; it is used by every row of x.

# %% [markdown]
# ### Exercise 1.4: the two gradients of a matrix product
#
# *Difficulty 2 of 5, 8 minutes.* Return both vjps of y = x W, as in exercise 1.1. If you are stuck,
# look at the shapes: there are not many products of g and W that fit.


# %%
def matmul_vjps(x: np.ndarray, W: np.ndarray):
    """(to_x, to_W): each takes g (n, d_out).   x (n, d_in), W (d_in, d_out)"""
    # SOLUTION
    return lambda g: g @ W.T, lambda g: x.T @ g
    # END SOLUTION


# %%
check.matmul_vjps(matmul_vjps)

# %% [markdown]
# ## Is a gradient right?
#
# A wrong gradient gives no error message. The loss may even fall, only less than it could. So every
# engine is tested, by what we did at first: move each entry a little and look. The slope
#
# $$\frac{f(x + h) - f(x - h)}{2h}$$
#
# is a *central difference*: its error shrinks with h², that of (f(x + h) − f(x)) / h only with h.
# And how large should h be? We try it on the slope of sin at 1, which is cos 1.


# %%
def error_of_slope(h: float, kind: type) -> float:
    """Of the central difference of sin at 1, computed with numbers of this kind."""
    x, h = kind(1), kind(h)
    return abs(float((np.sin(x + h) - np.sin(x - h)) / (2 * h)) - np.cos(1.0))


steps = 10.0 ** -np.arange(0, 12.1, 0.25)
kinds = (np.float64, np.float32)
errors = {kind: [error_of_slope(h, kind) for h in steps] for kind in kinds}
best = {kind.__name__: f"{min(e):.0e}" for kind, e in errors.items()}
print("the smallest error of any step:", best)

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    looks = {np.float64: ("o", "0.15", "-"), np.float32: ("s", "0.55", "--")}
    for kind, (marker, color, line) in looks.items():
        kept = [(h, e) for h, e in zip(steps, errors[kind], strict=True) if e > 0]
        ax.loglog(*zip(*kept, strict=True), line, marker=marker, color=color, label=kind.__name__)
    ax.set(xlabel="h", ylabel="error of the slope", title="Too large a step, or too small")
    ax.set_ylim(1e-13, 3)
    ax.invert_xaxis()
    ax.legend()
    ml.plots.show(
        figure,
        "Error of a central difference against the step h, from 1 down to 1e-12. It "
        "first falls with the square of h, then rises again; least for float64 near "
        "1e-5, float32 near 1e-2.",
    )

# %% [markdown]
# **What to see.** From the left, with smaller h the error falls, by two powers of ten for one: that
# is h². Then it rises again. f(x + h) and f(x − h) are nearly equal there, their difference has few
# correct digits left, and dividing by h makes the rounding large. In between lies the best h: about
# 10⁻⁵ in float64, the numbers with 16 digits, and 10⁻² in float32, with 7.
#
# **What it does not show.** That any h would do for every function: where f bends sharply, h² is
# multiplied by more. And a gradient that is wrong by less than the error passes. That is why
# gradients are checked in float64, though models are trained in float32.

# %% [markdown]
# ### Exercise 1.5: a gradient checker
#
# *Difficulty 3 of 5, 12 minutes.* f takes an array and returns a number; gradient takes the same
# array and claims to return the gradient of f there. Is it right? Return True or False. Take
# central differences with h = 1e-5, and call the gradient right if *each* entry is within
# `1e-4 * max(1, abs(slope))` of its slope. An entry that is nan, "not a number", is wrong.


# %%
def gradient_is_right(f, gradient, x: np.ndarray) -> bool:
    """Whether gradient(x), an array, is the gradient at x of f, f(x) a number."""
    # SOLUTION
    claimed, h = np.asarray(gradient(x)), 1e-5
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        slope = (f(up) - f(down)) / (2 * h)
        # nan is not <= anything
        if not abs(claimed[i] - slope) <= 1e-4 * max(1, abs(slope)):
            return False
    return True
    # END SOLUTION


# %%
check.gradient_is_right(gradient_is_right)

# %% [markdown]
# minilora's own is `ml.gradcheck`. All operations of the package are tested with it, and it names
# the entry at fault. Here it is with an operation whose vjp lacks a factor 2. (A `Tensor` is an
# array that remembers how it was made, and `minilora_record` makes one, from a result, the parents
# and their vjps; `requires_grad=True` asks for its gradient. The results are first multiplied by
# random numbers and summed, so the gradient at 3 is not simply 6: with all ones, some errors would
# cancel out.)


# %%
def wrong_square(x: ml.Tensor) -> ml.Tensor:
    half = (x, lambda g: g * x.data)  # should be 2 x
    return minilora_record(x.data * x.data, half)


try:
    ml.gradcheck(wrong_square, ml.Tensor(np.array([3.0, 4.0]), requires_grad=True))
except AssertionError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# ## Frozen
#
# Not every value needs a gradient: data never does. Nor does a *weight*, a matrix of parameters
# such as W, that is not to be trained; it is called *frozen*. An engine should then not compute its
# gradient and throw it away, but not compute it at all. One rule does that:
#
# > An edge is kept only if its parent needs a gradient. A result needs one if any of its parents
# > does.
#
# With the edge, its vjp is dropped, and with the vjp all that it remembered. Take y = x W with W
# frozen: of the three matrix products of a training step, `x @ W`, `g @ W.T` and `x.T @ g`, the
# last one is never computed, and nothing keeps x alive for it. That is the saving of LoRA, which
# freezes W, and it is all there is to it: nothing in an engine knows what LoRA is.

# %% [markdown]
# ### Exercise 1.6: your engine
#
# *Difficulty 3 of 5, 20 minutes.* Put the pieces together. `Value` is an array that remembers how
# it was made. Fill in `record`, which follows the rule above, then two operations and `backward`;
# the other operations show how. Use your functions from the exercises above.


# %%
def fit(vjp, parent):
    """A vjp whose gradient has the parent's shape."""
    return lambda g: unbroadcast(vjp(g), parent.data.shape)


def record(data, *edges):
    """The Value of a result.   edges: pairs (parent, vjp). Those to frozen parents
    are left out; of the others each vjp goes through `fit`."""
    # SOLUTION
    kept = [(p, fit(vjp, p)) for p, vjp in edges if p.requires_grad]
    return Value(data, bool(kept), kept)
    # END SOLUTION


class Value:
    def __init__(self, data, requires_grad=False, edges=()):
        self.data = np.asarray(data, np.float64)
        self.requires_grad, self.edges, self.grad = requires_grad, edges, None

    def __add__(self, other):
        edges = (self, lambda g: g), (other, lambda g: g)
        return record(self.data + other.data, *edges)

    def __mul__(self, other):
        # SOLUTION
        to_self, to_other = product_vjps(self.data, other.data)
        return record(self.data * other.data, (self, to_self), (other, to_other))
        # END SOLUTION

    def __matmul__(self, other):
        # SOLUTION
        to_self, to_other = matmul_vjps(self.data, other.data)
        return record(self.data @ other.data, (self, to_self), (other, to_other))
        # END SOLUTION

    def tanh(self):
        t = np.tanh(self.data)
        return record(t, (self, lambda g: g * (1 - t * t)))

    def sum(self):
        return record(self.data.sum(), (self, lambda g: g * np.ones(self.data.shape)))

    def backward(self):
        """Put the gradient of this number into .grad of each leaf that trains."""
        # SOLUTION
        for node, gradient in gradients(self).items():
            node.grad = gradient
        # END SOLUTION


# %%
check.Value(Value)

# %% [markdown]
# ### Predict, change, run: what a frozen model saves
#
# We count the multiplications and additions in all matrix products of `docs-tiny`, the small
# language model of the next lessons, in one step of *fine-tuning*, which is to train a trained
# model further, on 12 texts of 64 characters. With *full* fine-tuning everything trains. With LoRA
# its matrices are frozen, and beside each of them, (d_in, d_out), two thin ones train, (d_in, r)
# and (r, d_out), an *adapter* (here r, its *rank*, is 4; `lora_alpha` scales it, which costs
# nothing). How much does the *backward* pass cost, in multiples of the forward pass? Put your guess
# in place of the `...`, run, then change the method and guess again.

# %%
METHOD = "LoRA"  # change me: "full"
GUESS = ...  # 0.1, 1, 2, 5?

model = ml.load_model("docs-tiny")
if METHOD == "LoRA":
    config = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
ids = np.random.default_rng(0).integers(0, 96, (12, 65))  # 64 and the last one's next
with profile() as counted:
    ml.cross_entropy(model(ids[:, :-1]), ids[:, 1:]).backward()
forward = sum(cost.forward_flops for cost in counted.ops.values())
backward = sum(cost.backward_flops for cost in counted.ops.values())
print(f"{METHOD}, in millions: ", end="")
print(f"forward {forward / 1e6:.0f}, backward {backward / 1e6:.0f}")
check.predict(GUESS, backward / forward, unit="times the forward pass")

# %% [markdown]
# **What to see.** With full fine-tuning the backward pass costs just twice the forward pass: two
# products, for x and for W, where forward there is one. With LoRA it costs about as much as the
# forward pass, because the product for W is gone. So LoRA saves about a third of a whole step's
# multiplications, and not more: the gradient still has to flow *through* all frozen matrices, to
# reach the adapters of earlier layers.
#
# **Does it hold at scale?** The rule is the same in PyTorch, with which large models are trained.
# "LoRA Without Regret" (2025) counts about 2/3 of full fine-tuning's operations for LoRA. In
# Hugging Face's benchmark of Llama-3.2-3B (July 2026, with its library PEFT) LoRA on two
# matrices of each block, q and v (lesson 02), took 44 % of full fine-tuning's time and 57 % of its
# memory: there the *optimizer* counts too, the rule that turns gradients into steps; it has less to
# do (lesson 03).
#
# ## Where a graph ends
#
# The graph records operations on Values. An array that is taken out of it, and put back in, is a
# leaf: how it was made is forgotten, and no gradient passes. We cut a graph on purpose, between a
# trainable A and the loss.

# %%
x, A = ml.Tensor(np.ones((2, 3))), ml.Tensor(np.ones((3, 2)), requires_grad=True)
y = x @ A
for name, out in (("y", y), ("ml.Tensor(y.data)", ml.Tensor(y.data))):
    try:
        (out * out).sum().backward()
        print(f"from {name}: A gets a gradient, though x is frozen")
    except StateError as error:
        print(textwrap.fill(f"from {name}: {error}", 80))

# %% [markdown]
# In PyTorch the same fault reads *element 0 of tensors
# does not require grad*. Look for a `.data`, `.detach()` or `.numpy()` on the way to the loss, or a
# forward pass under `no_grad()`, which records nothing. What is *not* to blame: frozen weights on
# the way (their edge to x remains), inputs without a gradient (they are only where the graph
# ends), or values that are zero (the graph records operations, whatever the values are).
#
# ## Learning
#
# With gradients, learning is simple. Every parameter takes a small step against its gradient; then
# the loss is computed anew, and so on. This is *gradient descent*, and the factor in front of the
# gradient is the *learning rate*. The smallest example: fit a line y = x w + b through 20 points,
# so that the mean squared error is least.

# %%
rng = np.random.default_rng(1)
x_line = rng.uniform(-1, 1, (20, 1))
y_line = 2 * x_line - 1 + 0.2 * rng.standard_normal((20, 1))


def descend(rate: float, steps: int = 30, engine: type = ml.Tensor) -> list[float]:
    """The loss before each step, and after the last one."""
    w, b, losses = np.zeros((1, 1)), np.zeros(1), []
    for _ in range(steps + 1):
        w_node, b_node = engine(w, True), engine(b, True)
        error = engine(x_line) @ w_node + b_node + engine(-y_line)
        loss = (error * error).sum() * engine(np.array(1 / 20))
        loss.backward()
        w, b = w - rate * w_node.grad, b - rate * b_node.grad
        losses.append(float(loss.data))
    return losses


# %% [markdown]
# ### Predict, change, run: the learning rate
#
# Does the loss fall with this rate, or does it grow? To see your own engine at work, put
# `descend(RATE, engine=Value)` once exercise 1.6 is solved: it needs nothing else.

# %%
RATE = 0.1  # change me: 0.01, 0.9, 1.2
GUESS = ...  # "falls" or "grows"

losses = descend(RATE)
print(f"loss at first {losses[0]:.3g}, after 30 steps {losses[-1]:.3g}")
check.predict(GUESS, "falls" if losses[-1] < losses[0] else "grows")

# %% tags=["hide-input"]
with ml.plots.style():
    figure, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    looks = zip((0.01, 0.1, 0.9, 1.2), ("0.7", "0.45", "0.15", "0.3"), "osD^", strict=True)
    for rate, color, marker in looks:
        ax.plot(descend(rate), color=color, marker=marker, markevery=3, label=f"rate {rate:g}")
    ax.set(xlabel="step", ylabel="mean squared error", yscale="log", ylim=(0.02, 40))
    ax.set_title("One problem, four learning rates")
    ax.legend(ncols=2)
    ml.plots.show(
        figure,
        "Loss against steps for four learning rates. 0.01 is slow, 0.1 steady, 0.9 "
        "reaches the noise in a few steps, and 1.2 grows without end.",
    )

# %% [markdown]
# A larger rate is faster, up to a point from which each step jumps further past the valley than it
# started. None gets below about 0.05: that is the noise in the points. What rates suit LoRA, and
# why they differ from those of full fine-tuning, is the subject of lesson 08.

# %% [markdown]
# ### Exercise 1.7: train a network with your engine
#
# *Difficulty 4 of 5, 20 minutes.* The network is tanh(x W1 + b1) W2 + b2, the loss is the mean of
# (network − y)² over all entries of y. Take the given number of steps of gradient descent: all four
# arrays move at once, each by lr times its gradient. Return the four of them as arrays. It is meant
# for your `Value`, but any way that gives the right numbers will do.


# %%
def train_network(x, y, W1, b1, W2, b2, lr: float, steps: int):
    """The trained (W1, b1, W2, b2).

    x (n, d), y (n, k), W1 (d, m), b1 (m,), W2 (m, k), b2 (k,)"""
    # SOLUTION
    weights = [W1, b1, W2, b2]
    for _ in range(steps):
        nodes = [Value(w, True) for w in weights]
        hidden = (Value(x) @ nodes[0] + nodes[1]).tanh()
        error = hidden @ nodes[2] + nodes[3] + Value(-y)
        loss = (error * error).sum() * Value(1 / y.size)
        loss.backward()
        weights = [w - lr * node.grad for w, node in zip(weights, nodes, strict=True)]
    return tuple(weights)
    # END SOLUTION


# %%
check.train_network(train_network)

# %% [markdown]
# ## minilora's engine is the same
#
# You have written the core of `minilora/tensor.py`. Its `record` has your rule, and an operation is
# two lines that say what it computes and how a gradient goes back:

# %%
print(inspect.getsource(ops.mul))
body = inspect.getsource(minilora_record)
print(body[body.index("        if parent is not None and parent.requires") :])

# %% [markdown]
# What it has besides: it refuses to mix float32 with float64, it frees the graph as it walks, and
# it notices when a weight was changed between the forward and the backward pass. Then there are
# about thirty operations, each with a derivative like those above, and for speed a few large ones,
# such as attention, whose derivative is written by hand. Everything that follows in this course
# runs on this engine.
#
# ## The exam cards this prepares
#
# `minilora quiz --topic 01`, in a terminal, asks:
#
# - `loss.backward()` says that nothing requires a gradient, though an adapter is active: why?
#
# The gradients of A and B, which other cards ask for, are exercise 1.4 used three times.
#
# ## Where to read on
#
# - Lesson 02 builds a transformer, and lesson 04 LoRA's layer on an engine like yours.
# - `minilora/tensor.py` and `minilora/ops.py`: the engine and its operations.
# - Baydin et al. 2018, *Automatic Differentiation in Machine Learning: a Survey*.
# - Maclaurin, Duvenaud and Adams 2015, *Autograd: Effortless Gradients in Numpy*, from which the
#   idea of one function per argument is.
# - Karpathy's micrograd (2020): the same idea for single numbers, in 150 lines.
