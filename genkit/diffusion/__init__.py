"""Diffusion without networks: schedules, denoisers, time grids, samplers and guidance.

    schedule   how much data and noise there is at a time, x_t = α_t x_0 + σ_t ε
    denoise    what a network's output means, and the one loss that trains it
    grid       which times a sampler visits
    sample     how it steps from one time to the next
    guide      how strongly it follows the condition

t runs from 0 (data) to 1 (noise).
"""

__all__: list[str] = []
