"""Deciding: the cost model, the planner that searches it, and what real runs correct."""
