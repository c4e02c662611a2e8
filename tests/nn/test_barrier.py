"""What torch.compile keeps whole: its values, its gradient, and that it is a call in the compiled program."""

import torch

from qfx.nn import barrier


def test_powers_of_two_and_their_inverses_are_exact() -> None:
    exponents = torch.arange(-126, 127).float()
    powers, inverses = barrier.powers_of_two(exponents)
    assert powers.double().tolist() == [2.0**e for e in range(-126, 127)]
    assert inverses.double().tolist() == [2.0**-e for e in range(-126, 127)]


def test_keep_changes_neither_value_nor_gradient() -> None:
    x = torch.randn(5, requires_grad=True)
    assert barrier.keep(x) is x
    y = torch.compile(lambda x: barrier.keep(x) * 3, fullgraph=True, backend="aot_eager")(x)
    y.sum().backward()
    assert torch.equal(y, x * 3) and x.grad.tolist() == [3.0] * 5


def test_a_compiler_sees_operators_of_our_own() -> None:
    seen: list[str] = []

    def backend(module, inputs):
        seen.extend(str(node.target) for node in module.graph.nodes if node.op == "call_function")
        return module.forward

    torch.compile(lambda x: barrier.keep(x) * barrier.powers_of_two(x)[0], fullgraph=True, backend=backend)(
        torch.ones(2)
    )
    assert any("qfx.keep" in name for name in seen) and any("qfx.powers_of_two" in name for name in seen)
