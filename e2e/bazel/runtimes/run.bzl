"""Runs one program, without a shell, with the given execution properties."""

def _run_program_impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.run(
        executable = ctx.file.program,
        arguments = [output.path],
        outputs = [output],
        inputs = [ctx.file.program],
        mnemonic = "RunProgram",
    )
    return [DefaultInfo(files = depset([output]))]

run_program = rule(
    implementation = _run_program_impl,
    attrs = {"program": attr.label(allow_single_file = True, mandatory = True)},
)
