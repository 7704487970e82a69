"""Runs ComfyUI workflows in this process, without ComfyUI and without torch.

::

    from comfy_cpu_engine.engine import Engine

    engine = Engine(get_registry(), get_plugins(), ModelTree(Path("models")))
    result = engine.run(prompt, files={"photo.jpg": data})

Nothing is imported here, because the command line looks at `comfy_cpu_engine.plugin` at every start.
"""
