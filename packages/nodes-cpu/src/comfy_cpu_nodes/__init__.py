"""ComfyUI nodes that run on a CPU, without torch.

`ops` are pure functions on numpy arrays, `runtimes` hold loaded models, `nodes` are the ComfyUI classes over both.
Importing any of them loads no model library.
"""
