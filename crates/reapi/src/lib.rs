//! The gRPC services of the Remote Execution API.
