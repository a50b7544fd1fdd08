"""What an action asks of actiond, as execution properties.

    load("@actiond//:defs.bzl", "exec_properties", "actiond_platform")

    genrule(
        name = "report",
        exec_properties = exec_properties(libc = "glibc2.41", shell = True, memory = "2g"),
        ...
    )
"""

def exec_properties(
        host = False,
        libc = None,
        shell = False,
        image = None,
        memory = None,
        cpus = None,
        pids = None,
        mutates_inputs = False):
    """Returns the execution properties of a target or a platform.

    Args:
      host: whether the action has the toolchains of the server's host; its operator must allow that with
        `--allow-host-rootfs`.
      libc: the C library that the action has, such as "glibc2.41".
      shell: whether it has bash and coreutils beside the C library.
      image: the name of an OCI image that was imported into the server, such as
        "docker.io/library/debian:12".
      memory: a bound on the memory of the action, such as "2g".
      cpus: a bound on the cores that it uses.
      pids: a bound on the number of its processes.
      mutates_inputs: whether the action changes its input files.
    """
    roots = [name for name, is_given in [
        ("host", host),
        ("libc", libc or shell),
        ("image", image),
    ] if is_given]
    if len(roots) > 1:
        fail("an action has one root file system, not both {}".format(" and ".join(roots)))
    properties = {}
    if host:
        properties["rootfs"] = "host"
    if libc:
        properties["libc"] = libc
    if shell:
        properties["requires-bash"] = "true"
    if image:
        properties["container-image"] = image if image.startswith("docker://") else "docker://" + image

    # Bazel takes what is before a dot for the name of an execution group, so the names have none.
    if memory != None:
        properties["limits_memory"] = str(memory)
    if cpus != None:
        properties["limits_cpu"] = str(cpus)
    if pids != None:
        properties["limits_pids"] = str(pids)
    if mutates_inputs:
        properties["mutates_inputs"] = "1"
    return properties

def actiond_platform(name, cpu = "x86_64", constraint_values = [], visibility = None, **kwargs):
    """Declares a platform for actions on actiond.

    Args:
      name: the name of the platform.
      cpu: the machine of the server, "x86_64" or "aarch64".
      constraint_values: more constraints that the platform satisfies.
      visibility: the visibility of the platform.
      **kwargs: what `exec_properties` takes.
    """
    host, libc, image = kwargs.get("host"), kwargs.get("libc"), kwargs.get("image")
    root = "host" if host else libc if libc else "image" if image else "none"
    known = ["none", "host", "image"] + LIBCS
    native.platform(
        name = name,
        constraint_values = [
            "@platforms//os:linux",
            "@platforms//cpu:" + cpu,
        ] + ([Label("//constraints:" + root)] if root in known else []) + (
            [Label("//constraints:shell")] if kwargs.get("shell") or host else []
        ) + constraint_values,
        exec_properties = exec_properties(**kwargs),
        visibility = visibility,
    )

# The C libraries that a server may have; `linux-actiond doctor` lists those that it has.
LIBCS = [
    "glibc2.31",
    "glibc2.35",
    "glibc2.36",
    "glibc2.39",
    "glibc2.41",
]
