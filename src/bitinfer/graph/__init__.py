"""What a network is: nodes, the check that they fit together, and a builder.  Never runs one."""

from bitinfer.graph.builder import GraphBuilder
from bitinfer.graph.checked import CheckedGraph, check, infer, operations
from bitinfer.graph.checks import Value
from bitinfer.graph.nodes import Graph, Node

__all__ = [
    "CheckedGraph",
    "Graph",
    "GraphBuilder",
    "Node",
    "Value",
    "check",
    "infer",
    "operations",
]
