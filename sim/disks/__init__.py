"""The media behind a LUN: one disk agent, one module for each mechanism."""
