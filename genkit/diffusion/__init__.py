"""Diffusion without networks: schedules, denoisers, time grids, samplers, guidance, likelihood.

    curve        what a schedule is: how much data and noise, x_t = α_t x_0 + σ_t ε
    schedule     the schedules that people use; `terminal` ends one in pure noise
    exchange     schedules as diffusers' configuration files, and back
    denoise      what a network's output means, and the one loss that trains it
    grid         which times a sampler visits
    trajectory   what a sampler is, and the one loop over its steps
    sample       the samplers of one step; `multistep` has those that remember earlier estimates
    variance     how wide a step of the reverse chain is, and learning it
    guide        how strongly a denoiser follows its condition
    likelihood   how many bits a picture costs: a bound, and an estimate

t runs from 0 (data) to 1 (noise).
"""

__all__: list[str] = []
