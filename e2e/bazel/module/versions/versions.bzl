"""A toolchain of one program that lies in the root file system of its execution platform."""

def _version_toolchain_impl(ctx):
    return [platform_common.ToolchainInfo(program = ctx.attr.program)]

version_toolchain = rule(
    implementation = _version_toolchain_impl,
    attrs = {"program": attr.string(mandatory = True)},
)

def _version_report_impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.run_shell(
        outputs = [output],
        command = "{} > {}".format(
            ctx.toolchains["//versions:toolchain_type"].program,
            output.path,
        ),
        mnemonic = "VersionReport",
    )
    return [DefaultInfo(files = depset([output]))]

version_report = rule(
    implementation = _version_report_impl,
    toolchains = ["//versions:toolchain_type"],
)
