"""Graph to steps: buffers, canonical constants, lifetimes."""

from bitinfer.plan.lower import lower
from bitinfer.plan.steps import Buffer, Plan, Step, Window

__all__ = ["Buffer", "Plan", "Step", "Window", "lower"]
