"""The core of comfy-cpu: hooks, workflows, CPU conversion, model tree, resources, errors and the command line.

Importing it loads no heavy library, reads no environment and no file.
"""
