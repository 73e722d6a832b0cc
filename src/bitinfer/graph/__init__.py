"""What a network is: nodes, what is known of them, and a builder.  Never runs one."""

from bitinfer.graph.builder import GraphBuilder
from bitinfer.graph.checked import CheckedGraph, Lineage, check, operations
from bitinfer.graph.nodes import Graph, Node
from bitinfer.graph.values import Tensors, Value

__all__ = [
    "CheckedGraph",
    "Graph",
    "GraphBuilder",
    "Lineage",
    "Node",
    "Tensors",
    "Value",
    "check",
    "operations",
]
