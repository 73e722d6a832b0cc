"""Graph to steps: buffers, canonical constants, lifetimes."""

from bitinfer.plan.joins import share_joins
from bitinfer.plan.lower import lower, operations
from bitinfer.plan.steps import Buffer, NodeStep, Plan, Step, Window

__all__ = ["Buffer", "NodeStep", "Plan", "Step", "Window", "lower", "operations", "share_joins"]
