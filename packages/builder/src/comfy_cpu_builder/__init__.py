"""The image builder: spec → plan → lock → fetch → bake → render → build → verify.

`spec` and `plan` say what goes into an image, `lock` pins it, `fetch` and `bake` bring the models, `render` makes the
files of a build context out of plan and lock, `context` writes it, `engines` build it, `verify` looks at what came out.
Plan and render are pure. What is particular to a model family comes from plugins.
"""
