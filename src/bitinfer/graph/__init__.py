"""What a network is: nodes, shapes, and a builder.  Never runs one."""

from bitinfer.graph.builder import GraphBuilder
from bitinfer.graph.nodes import Graph, Node
from bitinfer.graph.shapes import Value, infer, operations

__all__ = ["Graph", "GraphBuilder", "Node", "Value", "infer", "operations"]
