//! Named root file systems: C libraries, shells, the host's toolchains.
