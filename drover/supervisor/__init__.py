"""The small program that owns one agent, so that an agent outlives a killed drover only to be ended.

It imports nothing but the standard library, and little of that: it starts once per agent.
"""
