//! PID 1 and the worker inside the VM.
