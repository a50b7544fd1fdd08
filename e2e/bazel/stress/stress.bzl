"""Rules whose actions have many inputs, and a tree of outputs beside one output file.

Every action runs the same static tool, so that the workspace needs nothing from the root file
system it runs in: what an action sees is exactly what the server made of its inputs.
"""

def _stress_impl(ctx):
    summary = ctx.actions.declare_file(ctx.label.name + ".summary")
    tree = ctx.actions.declare_directory(ctx.label.name + ".tree")

    arguments = ctx.actions.args()
    arguments.use_param_file("@%s", use_always = True)
    arguments.set_param_file_format("multiline")
    arguments.add(summary, format = "--summary=%s")
    arguments.add_all([tree], format_each = "--tree=%s", expand_directories = False)
    arguments.add(ctx.attr.tree_files, format = "--tree-files=%s")
    arguments.add_all(ctx.attr.checks, format_each = "--check=%s")
    arguments.add(ctx.attr.expected_inputs, format = "--expect-inputs=%s")

    # Directories, generated ones and those of the source tree, are named as one argument each: the
    # tool walks them itself and so sees what the server presents, not what Bazel listed.
    arguments.add_all(ctx.files.srcs, format_each = "--input=%s", expand_directories = False)

    ctx.actions.run(
        executable = ctx.executable._tool,
        arguments = [arguments],
        inputs = ctx.files.srcs,
        outputs = [summary, tree],
        mnemonic = "Stress",
        progress_message = "Stressing %{label}",
    )
    return [DefaultInfo(files = depset([summary, tree]))]

stress = rule(
    implementation = _stress_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = True),
        "tree_files": attr.int(default = 4),
        "expected_inputs": attr.int(mandatory = True),
        "checks": attr.string_list(),
        "_tool": attr.label(
            default = "//:action_tool",
            executable = True,
            allow_single_file = True,
            cfg = "exec",
        ),
    },
)

def _tree_of_impl(ctx):
    """Only the tree of a `stress` target, so that others can take it as their one input."""
    return [DefaultInfo(files = depset([file for file in ctx.files.src if file.is_directory]))]

tree_of = rule(
    implementation = _tree_of_impl,
    attrs = {"src": attr.label(mandatory = True)},
)

def _shaped_tree_impl(ctx):
    tree = ctx.actions.declare_directory(ctx.label.name + ".tree")
    arguments = ctx.actions.args()
    arguments.add_all([tree], format_each = "--tree=%s", expand_directories = False)
    arguments.add_all(ctx.attr.shapes, format_each = "--shape=%s")
    ctx.actions.run(
        executable = ctx.executable._tool,
        arguments = [arguments],
        outputs = [tree],
        mnemonic = "Shape",
    )
    return [DefaultInfo(files = depset([tree]))]

shaped_tree = rule(
    implementation = _shaped_tree_impl,
    doc = "A tree with what trees rarely have: empty directories, symlinks, executables.",
    attrs = {
        "shapes": attr.string_list(),
        "_tool": attr.label(
            default = "//:action_tool",
            executable = True,
            allow_single_file = True,
            cfg = "exec",
        ),
    },
)
