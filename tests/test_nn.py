"""Layers: what a fresh net computes is known, attention has one meaning, sizes are free."""

import math

import pytest
import torch
from torch import Tensor, nn

from genkit.nn.attention import Attention, attend, attend_explicitly
from genkit.nn.convnet import ConvBlock, Patchify, Unpatchify
from genkit.nn.embedding import Position, TimeEmbedding, coordinates, waves
from genkit.nn.layers import Modulate, full, zeros
from genkit.nn.transformer import Feedforward, Layer
from genkit.nn.unet import Block, Mix, UNet


def shaken(module: nn.Module) -> nn.Module:
    """The module with every zero of its start replaced, so that nothing hides behind a zero."""
    torch.manual_seed(1)
    for p in module.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.2)
    return module


def small_unet() -> UNet:
    torch.manual_seed(0)
    return UNet(latent=4, channels=(16, 32), blocks=(1, 2), heads=(1, 2), text=12, dim=16)


def inputs(batch: int = 3, height: int = 8, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 4, height, width, generator=rng)
    return x, torch.rand(batch, generator=rng), torch.randn(batch, 5, 12, generator=rng)


def test_full_raises_precision_and_never_lowers_it():
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        assert full(torch.ones(2, dtype=dtype)).dtype == expected


def test_zeros_leaves_nothing():
    assert not any(p.any() for p in zeros(nn.Conv2d(2, 3, 3)).parameters())


@pytest.mark.parametrize("block", [ConvBlock(8), Layer(8, 2)])
def test_fresh_residual_blocks_are_the_identity(block):
    x = torch.randn(2, 8, 4, 4) if isinstance(block, ConvBlock) else torch.randn(2, 5, 8)
    assert torch.equal(block(x), x)
    assert not torch.allclose(shaken(block)(x), x)


def test_fresh_feedforward_and_attention_return_zero():
    x = torch.randn(2, 5, 8)
    assert not Feedforward(8)(x).any()
    assert not Attention(8, 2)(x).any()


def test_fresh_unet_blocks_are_the_identity_and_modulation_too():
    x, c, text = torch.randn(2, 16, 4, 4), torch.randn(2, 6), torch.randn(2, 3, 12)
    assert torch.equal(Modulate(16, 6)(x, c), x)
    assert torch.equal(Block(16, 16, 6)(x, c), x)
    assert torch.equal(Mix(16, 12, 2, cells=True)(x, text), x)
    block = Block(16, 32, 6)
    assert torch.equal(block(x, c), block.skip(x))


def test_modulate_is_scale_and_shift():
    modulate, x, c = shaken(Modulate(4, 6)), torch.randn(2, 4, 3, 3), torch.randn(2, 6)
    a, b = modulate.affine(c)[:, :, None, None].chunk(2, dim=1)
    torch.testing.assert_close(modulate(x, c), x * (1 + a) + b)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_spelt_out_is_the_fused_kernel(masked):
    q, k, v = (torch.randn(2, 3, n, 8, dtype=torch.float64) for n in (5, 7, 7))
    mask = torch.arange(7) < torch.tensor([[4], [7]]) if masked else None
    with torch.no_grad():
        fused = attend(q, k, v, mask)
    torch.testing.assert_close(attend(q, k, v, mask), attend_explicitly(q, k, v, mask))
    torch.testing.assert_close(attend_explicitly(q, k, v, mask), fused, rtol=1e-12, atol=1e-12)


def test_attention_by_hand():
    q = torch.tensor([[[[2.0]]]])
    k, v = torch.tensor([[[[0.0], [math.log(3) / 2]]]]), torch.tensor([[[[4.0], [8.0]]]])
    # Weights 1 : 3, so the mean of the values is (4 + 3·8)/4.
    assert attend(q, k, v).item() == pytest.approx(7.0)
    assert attend(q, k, v, torch.tensor([[True, False]])).item() == pytest.approx(4.0)


def test_hidden_keys_do_not_matter_at_all():
    attention = shaken(Attention(8, 2))
    x, mask = torch.randn(2, 6, 8), torch.arange(6).expand(2, -1) < 4
    other = torch.where(mask[..., None], x, torch.randn_like(x))
    assert torch.equal(attention(x, x, mask), attention(x, other, mask))


def test_self_attention_is_attention_to_itself_and_commutes_with_permutations():
    layer, x = shaken(Layer(8, 2)).double(), torch.randn(2, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer(x, x))
    order = torch.randperm(6)
    torch.testing.assert_close(layer(x)[:, order], layer(x[:, order]))


def test_attention_refuses_uneven_heads():
    with pytest.raises(ValueError, match="5 heads cannot share 8"):
        Attention(8, 5)


def test_patchify_and_unpatchify_can_be_inverse():
    x, fold, unfold = torch.randn(2, 3, 8, 12), Patchify(3, 48, 4), Unpatchify(48, 3, 4)
    with torch.no_grad():
        fold.weight.copy_(torch.eye(48).view(48, 3, 4, 4))
        unfold.conv.weight.copy_(torch.eye(48)[:, :, None, None])
        fold.bias.zero_()
        unfold.conv.bias.zero_()
    assert torch.equal(unfold(fold(x)), x)


def test_waves_are_sines_and_cosines():
    u, omega = torch.tensor([0.0, 0.25]), torch.tensor([math.pi, 2 * math.pi])
    expected = torch.tensor([[0, 0, 1, 1], [math.sqrt(0.5), 1, math.sqrt(0.5), 0]])
    torch.testing.assert_close(waves(u, omega), expected, atol=1e-6, rtol=0)


def test_coordinates_are_in_units_of_the_side():
    """Twice as many cells: a cell lies between two new ones, where the waves are between too."""
    coarse, fine = (coordinates(n, n, 1, torch.device("cpu")) for n in (8, 16))
    torch.testing.assert_close(nn.functional.avg_pool2d(fine, 2), coarse, atol=0.01, rtol=0)
    assert coarse.shape == (1, 4, 8, 8)
    flat = coordinates(4, 6, 2, torch.device("cpu"))[0]
    assert torch.equal(flat[:4, :, :1].expand(-1, -1, 6), flat[:4])  # y does not change along x
    assert torch.equal(flat[4:, :1].expand(-1, 4, -1), flat[4:])


def test_position_adds_the_same_to_every_picture():
    position, x = Position(5), torch.randn(2, 5, 4, 4)
    added = position(x) - x
    torch.testing.assert_close(added[0], added[1], atol=1e-6, rtol=0)
    assert len(added[0].flatten(1).unique(dim=1).T) == 16  # every cell has a place of its own


def test_time_embedding_tells_close_times_apart_and_keeps_its_precision_in_bfloat16():
    embed, t = TimeEmbedding(16), torch.tensor([0.999, 1.0])
    a, b = embed(t)
    assert (a - b).abs().max() > 1e-3
    a, b = embed.bfloat16()(t)
    assert a.dtype == torch.bfloat16 and not torch.equal(a, b)


def test_fresh_unet_is_zero():
    assert not small_unet()(*inputs()).any()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 8), (6, 10), (2, 2)])
def test_unet_takes_every_even_size(height, width):
    unet, (x, time, text) = shaken(small_unet()), inputs(2, height, width)
    out = unet(x, time, text)
    assert out.shape == x.shape and out.isfinite().all() and out.any()


def test_unet_refuses_odd_sizes_and_odd_widths():
    with pytest.raises(ValueError, match="7×8.*multiple of 16"):
        small_unet()(*inputs(1, 8, 7))
    with pytest.raises(ValueError, match="40 channels"):
        UNet(channels=(16, 40))


def test_a_picture_does_not_depend_on_its_batch():
    unet, (x, time, text) = shaken(small_unet()).eval(), inputs(8)
    with torch.no_grad():
        together = unet(x, time, text)
        alone = torch.cat([unet(x[i, None], time[i, None], text[i, None]) for i in range(8)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_every_input_and_every_parameter_matters():
    unet, (x, time, text) = shaken(small_unet()), inputs()
    leaves = [leaf.requires_grad_() for leaf in (x, time, text)]
    unet(*leaves).square().sum().backward()
    for name, tensor in [*unet.named_parameters(), *zip(("x", "time", "text"), leaves)]:
        assert tensor.grad is not None and tensor.grad.any(), name
        assert tensor.grad.isfinite().all(), name


def test_unet_runs_in_bfloat16_near_float32():
    unet, (x, time, text) = shaken(small_unet()).eval(), inputs()
    with torch.no_grad():
        exact = unet(x, time, text)
        rough = unet.bfloat16()(x.bfloat16(), time, text)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_unet_is_saved_with_its_config(tmp_path):
    unet = shaken(small_unet()).eval()
    unet.save_pretrained(tmp_path / "unet")
    again = UNet.from_pretrained(tmp_path / "unet")
    with torch.no_grad():
        assert torch.equal(again(*inputs()), unet(*inputs()))
