"""A rule whose output is one declared directory, filled by a script.

Bazel sends such a directory as an empty input directory and counts on the executor to make it the
action's own; tools then change its mode and times, replace it, or check its owner.
"""

def _tree_impl(ctx):
    tree = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        command = "set -euo pipefail; OUT=$1; ZIPPER=$2; " + ctx.attr.script,
        arguments = [tree.path, ctx.executable._zipper.path],
        outputs = [tree],
        tools = [ctx.executable._zipper],
        mnemonic = "Tree",
    )
    return [DefaultInfo(files = depset([tree]))]

tree = rule(
    implementation = _tree_impl,
    attrs = {
        "script": attr.string(mandatory = True),
        "_zipper": attr.label(
            default = "@bazel_tools//tools/zip:zipper",
            executable = True,
            cfg = "exec",
        ),
    },
)
