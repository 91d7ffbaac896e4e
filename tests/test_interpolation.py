"""The straight line and the arc between two points: identities and known answers."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from genkit.interpolation import angle, lerp, slerp

PLACES = torch.linspace(0, 1, 9)
RNG = torch.Generator().manual_seed(0)


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(shape, generator=RNG), torch.randn(shape, generator=RNG)


def norms(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x.double().flatten(1), dim=1)


@pytest.mark.parametrize("path", [lerp, slerp])
@pytest.mark.parametrize("shape", [(3,), (4, 4, 4), (3, 32, 32)])
def test_the_ends_are_exact(path, shape):
    a, b = pair(*shape)
    way = path(a, 5 * b, PLACES)
    assert way.shape == (9, *shape)
    assert torch.equal(way[0], a)
    assert torch.equal(way[-1], 5 * b)


def test_a_line_is_straight():
    a, b = pair(7)
    steps = lerp(a, b, PLACES).diff(dim=0)
    torch.testing.assert_close(steps, ((b - a) / 8).expand(8, 7))


def test_an_arc_keeps_the_length_and_goes_at_one_speed():
    a, b = pair(3, 8, 8)
    b = b * torch.linalg.vector_norm(a) / torch.linalg.vector_norm(b)
    way = slerp(a, b, PLACES)
    torch.testing.assert_close(norms(way), norms(a[None]).expand(9))
    angles = [angle(way[i], way[i + 1]) for i in range(8)]
    np.testing.assert_allclose(angles, angle(a, b) / 8, rtol=1e-5)


def test_lengths_that_differ_are_joined_by_a_line():
    a, b = pair(50)
    way = norms(slerp(a, 3 * b, PLACES))
    torch.testing.assert_close(
        way, torch.lerp(norms(a[None]), norms(3 * b[None]), PLACES.double())
    )


def test_at_right_angles_it_is_a_quarter_of_a_circle():
    a, b = torch.tensor([2.0, 0, 0]), torch.tensor([0, 2.0, 0])
    turn = PLACES * math.pi / 2
    expected = 2 * torch.stack((turn.cos(), turn.sin(), 0 * turn), dim=1)
    torch.testing.assert_close(slerp(a, b, PLACES), expected)
    assert angle(a, b) == pytest.approx(math.pi / 2)


def test_it_agrees_with_scipy_on_quaternions():
    a, b = (x / torch.linalg.vector_norm(x) for x in pair(4))
    b = b * torch.sign(a @ b)  # a rotation is two quaternions; scipy takes the nearer one
    turns = Slerp([0, 1], Rotation.from_quat(torch.stack((a, b)).numpy()))(PLACES.numpy())
    found = Rotation.from_quat(slerp(a, b, PLACES).numpy())
    assert (turns.inv() * found).magnitude().max() < 1e-5


def test_a_narrow_arc_is_the_line():
    a, b = pair(100)
    for near in (a, a + 1e-9 * b, 2 * a):
        torch.testing.assert_close(slerp(a, near, PLACES), lerp(a, near, PLACES))
    b = a.double() + 1e-5 * b.double()
    torch.testing.assert_close(slerp(a.double(), b, PLACES), lerp(a.double(), b, PLACES.double()))


def test_what_has_no_way_is_told():
    a, b = pair(5)
    for other in (-a, -3 * a):
        with pytest.raises(ValueError, match="opposite sides of the origin"):
            slerp(a, other, PLACES)
    with pytest.raises(ValueError, match="no direction"):
        slerp(a, torch.zeros(5), PLACES)
    for path in (lerp, slerp):
        with pytest.raises(ValueError, match=r"\(5,\) and \(4,\)"):
            path(a, b[:4], PLACES)
        with pytest.raises(ValueError, match="NaN or infinite"):
            path(a, b * math.nan, PLACES)
