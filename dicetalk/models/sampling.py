"""Stable Video Diffusion's noise process: EDM preconditioning (Karras et al.) with velocity prediction.

With noise level sigma, a noisy latent is `clean + sigma * noise`. The network sees `c_in * noisy` and
`c_noise = 0.25 * ln(sigma)`, predicts a velocity v, and `clean = c_skip * noisy + c_out * v`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import EulerDiscreteScheduler


@dataclass(frozen=True)
class Preconditioning:
    """EDM coefficients, in the shape of `sigma`."""

    c_in: torch.Tensor
    c_skip: torch.Tensor
    c_out: torch.Tensor
    c_noise: torch.Tensor


def precondition(sigma: torch.Tensor) -> Preconditioning:
    """Return the coefficients for noise levels `sigma` > 0 of any shape; `c_noise` is the UNet's timestep."""
    variance = sigma**2 + 1
    return Preconditioning(
        c_in=variance.rsqrt(),
        c_skip=1 / variance,
        c_out=-sigma * variance.rsqrt(),
        c_noise=0.25 * sigma.log(),
    )


def add_noise(clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return `clean + sigma * noise`; `sigma` is a scalar or `(batch,)`."""
    return clean + _like(sigma, clean) * noise


def velocity_target(clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return the velocity whose `denoised` is exactly `clean`.

    Its plain mean squared error equals EDM's weighted loss on `clean`.

    Args:
        clean: scaled latents `(batch, ...)`.
        noise: the unit noise that was added, same shape.
        sigma: noise level, a scalar or `(batch,)`.
    """
    sigma = _like(sigma, clean)
    return (noise - sigma * clean) * (sigma**2 + 1).rsqrt()


def denoised(noisy: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return the clean latents that a velocity implies; `sigma` is a scalar or `(batch,)`."""
    coefficients = precondition(_like(sigma, noisy))
    return coefficients.c_skip * noisy + coefficients.c_out * velocity


def make_scheduler(sigma_min: float = 0.002, sigma_max: float = 700.0) -> EulerDiscreteScheduler:
    """Return SVD-XT's sampler: Euler steps over Karras sigmas (rho 7), `sigma_max` to `sigma_min`, then 0."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        interpolation_type="linear",
        use_karras_sigmas=True,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
    )


def _like(sigma: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Append axes to `sigma` until it broadcasts over `(batch, ...)`."""
    return sigma.reshape(sigma.shape + (1,) * (tensor.ndim - sigma.ndim)) if sigma.ndim else sigma
