"""The interface of plug-ins, and all that finds, loads and guards them."""
