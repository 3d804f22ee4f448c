"""Smooth-Cut and Cam-Cut together."""

from typing import ClassVar

from pruning.scores.cam_cut import CamCut
from pruning.scores.smooth_cut import ABSOLUTE_NOISE, RELATIVE_NOISE
from pruning.weight_pass import Plan


class SmoothCamCut(CamCut):
    """``sum_b |w_ij * mean_noise dL_b/dw_ij * a_i|`` (DeepCuts' ``LayerSmoothGradCAM``, arXiv 2212.13392).

    Gradients are averaged over noisy passes as in ``SmoothCut``; the mean activations a_i are those without noise.
    Departures as in ``CamCut`` and ``SmoothCut`` (``smooth_cam_cut_absolute`` has their noise).
    """

    name: ClassVar[str] = "smooth_cam_cut"
    version: ClassVar[int] = 1
    plan: ClassVar[Plan] = Plan(noise=RELATIVE_NOISE)


class SmoothCamCutAbsolute(SmoothCamCut):
    """``smooth_cam_cut`` with the noise of DeepCuts' code: standard deviation 0.001 on every output, whatever its size.

    Departures as in ``CamCut``.
    """

    name: ClassVar[str] = "smooth_cam_cut_absolute"
    version: ClassVar[int] = 1
    plan: ClassVar[Plan] = Plan(noise=ABSOLUTE_NOISE)
