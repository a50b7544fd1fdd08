//! The messages and services, as data.
//!
//! A field is `number name type`, with `repeated` or `enum` before the type where
//! it is so, and `in NAME` behind it in a oneof; a method is
//! `name [stream] request > [stream] response`. Types of the same package need no
//! package. What is left out (methods that this server lacks, and what only they
//! use) is not announced.

use super::descriptors::{Enumeration, File, Message, Service};

/// Every file, those that others import first.
pub(super) const FILES: &[File] = &[
    File {
        name: "build/bazel/semver/semver.proto",
        package: "build.bazel.semver",
        imports: &[],
        messages: &[Message {
            name: "SemVer",
            fields: &["1 major int32", "2 minor int32", "3 patch int32", "4 prerelease string"],
        }],
        enumerations: &[],
        services: &[],
    },
    File {
        name: "google/protobuf/any.proto",
        package: "google.protobuf",
        imports: &[],
        messages: &[Message { name: "Any", fields: &["1 type_url string", "2 value bytes"] }],
        enumerations: &[],
        services: &[],
    },
    File {
        name: "google/protobuf/duration.proto",
        package: "google.protobuf",
        imports: &[],
        messages: &[Message { name: "Duration", fields: &["1 seconds int64", "2 nanos int32"] }],
        enumerations: &[],
        services: &[],
    },
    File {
        name: "google/protobuf/empty.proto",
        package: "google.protobuf",
        imports: &[],
        messages: &[Message { name: "Empty", fields: &[] }],
        enumerations: &[],
        services: &[],
    },
    File {
        name: "google/rpc/status.proto",
        package: "google.rpc",
        imports: &["google/protobuf/any.proto"],
        messages: &[Message {
            name: "Status",
            fields: &["1 code int32", "2 message string", "3 details repeated google.protobuf.Any"],
        }],
        enumerations: &[],
        services: &[],
    },
    File {
        name: "google/longrunning/operations.proto",
        package: "google.longrunning",
        imports: &[
            "google/protobuf/any.proto",
            "google/protobuf/duration.proto",
            "google/protobuf/empty.proto",
            "google/rpc/status.proto",
        ],
        messages: &[
            Message { name: "CancelOperationRequest", fields: &["1 name string"] },
            Message { name: "GetOperationRequest", fields: &["1 name string"] },
            Message {
                name: "ListOperationsRequest",
                fields: &[
                    "4 name string",
                    "1 filter string",
                    "2 page_size int32",
                    "3 page_token string",
                    "5 return_partial_success bool",
                ],
            },
            Message {
                name: "ListOperationsResponse",
                fields: &[
                    "1 operations repeated Operation",
                    "2 next_page_token string",
                    "3 unreachable repeated string",
                ],
            },
            Message {
                name: "Operation",
                fields: &[
                    "1 name string",
                    "2 metadata google.protobuf.Any",
                    "3 done bool",
                    "4 error google.rpc.Status in result",
                    "5 response google.protobuf.Any in result",
                ],
            },
            Message {
                name: "WaitOperationRequest",
                fields: &["1 name string", "2 timeout google.protobuf.Duration"],
            },
        ],
        enumerations: &[],
        services: &[Service {
            name: "Operations",
            methods: &[
                "ListOperations ListOperationsRequest > ListOperationsResponse",
                "GetOperation GetOperationRequest > Operation",
                "CancelOperation CancelOperationRequest > google.protobuf.Empty",
                "WaitOperation WaitOperationRequest > Operation",
            ],
        }],
    },
    File {
        name: "google/protobuf/timestamp.proto",
        package: "google.protobuf",
        imports: &[],
        messages: &[Message { name: "Timestamp", fields: &["1 seconds int64", "2 nanos int32"] }],
        enumerations: &[],
        services: &[],
    },
    File {
        name: "google/protobuf/wrappers.proto",
        package: "google.protobuf",
        imports: &[],
        messages: &[Message { name: "UInt32Value", fields: &["1 value uint32"] }],
        enumerations: &[],
        services: &[],
    },
    File {
        name: "build/bazel/remote/execution/v2/remote_execution.proto",
        package: "build.bazel.remote.execution.v2",
        imports: &[
            "build/bazel/semver/semver.proto",
            "google/longrunning/operations.proto",
            "google/protobuf/any.proto",
            "google/protobuf/duration.proto",
            "google/protobuf/timestamp.proto",
            "google/protobuf/wrappers.proto",
            "google/rpc/status.proto",
        ],
        messages: &[
            Message {
                name: "Action",
                fields: &[
                    "1 command_digest Digest",
                    "2 input_root_digest Digest",
                    "6 timeout google.protobuf.Duration",
                    "7 do_not_cache bool",
                    "9 salt bytes",
                    "10 platform Platform",
                ],
            },
            Message { name: "ActionCacheUpdateCapabilities", fields: &["1 update_enabled bool"] },
            Message {
                name: "ActionResult",
                fields: &[
                    "2 output_files repeated OutputFile",
                    "10 output_file_symlinks repeated OutputSymlink",
                    "12 output_symlinks repeated OutputSymlink",
                    "3 output_directories repeated OutputDirectory",
                    "11 output_directory_symlinks repeated OutputSymlink",
                    "4 exit_code int32",
                    "5 stdout_raw bytes",
                    "6 stdout_digest Digest",
                    "7 stderr_raw bytes",
                    "8 stderr_digest Digest",
                    "9 execution_metadata ExecutedActionMetadata",
                ],
            },
            Message {
                name: "BatchReadBlobsRequest",
                fields: &[
                    "1 instance_name string",
                    "2 digests repeated Digest",
                    "3 acceptable_compressors repeated enum Compressor.Value",
                    "4 digest_function enum DigestFunction.Value",
                ],
            },
            Message {
                name: "BatchReadBlobsResponse",
                fields: &["1 responses repeated BatchReadBlobsResponse.Response"],
            },
            Message {
                name: "BatchReadBlobsResponse.Response",
                fields: &[
                    "1 digest Digest",
                    "2 data bytes",
                    "4 compressor enum Compressor.Value",
                    "3 status google.rpc.Status",
                ],
            },
            Message {
                name: "BatchUpdateBlobsRequest",
                fields: &[
                    "1 instance_name string",
                    "2 requests repeated BatchUpdateBlobsRequest.Request",
                    "5 digest_function enum DigestFunction.Value",
                ],
            },
            Message {
                name: "BatchUpdateBlobsRequest.Request",
                fields: &["1 digest Digest", "2 data bytes", "3 compressor enum Compressor.Value"],
            },
            Message {
                name: "BatchUpdateBlobsResponse",
                fields: &["1 responses repeated BatchUpdateBlobsResponse.Response"],
            },
            Message {
                name: "BatchUpdateBlobsResponse.Response",
                fields: &["1 digest Digest", "2 status google.rpc.Status"],
            },
            Message {
                name: "CacheCapabilities",
                fields: &[
                    "1 digest_functions repeated enum DigestFunction.Value",
                    "2 action_cache_update_capabilities ActionCacheUpdateCapabilities",
                    "3 cache_priority_capabilities PriorityCapabilities",
                    "4 max_batch_total_size_bytes int64",
                    "5 symlink_absolute_path_strategy enum SymlinkAbsolutePathStrategy.Value",
                    "6 supported_compressors repeated enum Compressor.Value",
                    "7 supported_batch_update_compressors repeated enum Compressor.Value",
                    "8 max_cas_blob_size_bytes int64",
                    "9 split_blob_support bool",
                    "10 splice_blob_support bool",
                    "11 fast_cdc_2020_params FastCdc2020Params",
                    "12 rep_max_cdc_params RepMaxCdcParams",
                ],
            },
            Message {
                name: "Command",
                fields: &[
                    "1 arguments repeated string",
                    "2 environment_variables repeated Command.EnvironmentVariable",
                    "3 output_files repeated string",
                    "4 output_directories repeated string",
                    "7 output_paths repeated string",
                    "5 platform Platform",
                    "6 working_directory string",
                    "8 output_node_properties repeated string",
                    "9 output_directory_format enum Command.OutputDirectoryFormat",
                ],
            },
            Message {
                name: "Command.EnvironmentVariable",
                fields: &["1 name string", "2 value string"],
            },
            Message { name: "Digest", fields: &["1 hash string", "2 size_bytes int64"] },
            Message {
                name: "Directory",
                fields: &[
                    "1 files repeated FileNode",
                    "2 directories repeated DirectoryNode",
                    "3 symlinks repeated SymlinkNode",
                    "5 node_properties NodeProperties",
                ],
            },
            Message { name: "DirectoryNode", fields: &["1 name string", "2 digest Digest"] },
            Message {
                name: "ExecuteOperationMetadata",
                fields: &[
                    "1 stage enum ExecutionStage.Value",
                    "2 action_digest Digest",
                    "3 stdout_stream_name string",
                    "4 stderr_stream_name string",
                    "5 partial_execution_metadata ExecutedActionMetadata",
                    "6 digest_function enum DigestFunction.Value",
                ],
            },
            Message {
                name: "ExecuteRequest",
                fields: &[
                    "1 instance_name string",
                    "3 skip_cache_lookup bool",
                    "6 action_digest Digest",
                    "7 execution_policy ExecutionPolicy",
                    "8 results_cache_policy ResultsCachePolicy",
                    "9 digest_function enum DigestFunction.Value",
                    "10 inline_stdout bool",
                    "11 inline_stderr bool",
                    "12 inline_output_files repeated string",
                ],
            },
            Message {
                name: "ExecuteResponse",
                fields: &[
                    "1 result ActionResult",
                    "2 cached_result bool",
                    "3 status google.rpc.Status",
                    "4 server_logs repeated ExecuteResponse.ServerLogsEntry",
                    "5 message string",
                ],
            },
            Message {
                name: "ExecuteResponse.ServerLogsEntry",
                fields: &["1 key string", "2 value LogFile"],
            },
            Message {
                name: "ExecutedActionMetadata",
                fields: &[
                    "1 worker string",
                    "2 queued_timestamp google.protobuf.Timestamp",
                    "3 worker_start_timestamp google.protobuf.Timestamp",
                    "4 worker_completed_timestamp google.protobuf.Timestamp",
                    "5 input_fetch_start_timestamp google.protobuf.Timestamp",
                    "6 input_fetch_completed_timestamp google.protobuf.Timestamp",
                    "7 execution_start_timestamp google.protobuf.Timestamp",
                    "8 execution_completed_timestamp google.protobuf.Timestamp",
                    "12 virtual_execution_duration google.protobuf.Duration",
                    "9 output_upload_start_timestamp google.protobuf.Timestamp",
                    "10 output_upload_completed_timestamp google.protobuf.Timestamp",
                    "11 auxiliary_metadata repeated google.protobuf.Any",
                ],
            },
            Message {
                name: "ExecutionCapabilities",
                fields: &[
                    "1 digest_function enum DigestFunction.Value",
                    "2 exec_enabled bool",
                    "3 execution_priority_capabilities PriorityCapabilities",
                    "4 supported_node_properties repeated string",
                    "5 digest_functions repeated enum DigestFunction.Value",
                ],
            },
            Message { name: "ExecutionPolicy", fields: &["1 priority int32"] },
            Message {
                name: "FastCdc2020Params",
                fields: &["1 avg_chunk_size_bytes uint64", "2 seed uint32"],
            },
            Message {
                name: "FileNode",
                fields: &[
                    "1 name string",
                    "2 digest Digest",
                    "4 is_executable bool",
                    "6 node_properties NodeProperties",
                ],
            },
            Message {
                name: "FindMissingBlobsRequest",
                fields: &[
                    "1 instance_name string",
                    "2 blob_digests repeated Digest",
                    "3 digest_function enum DigestFunction.Value",
                ],
            },
            Message {
                name: "FindMissingBlobsResponse",
                fields: &["2 missing_blob_digests repeated Digest"],
            },
            Message {
                name: "GetActionResultRequest",
                fields: &[
                    "1 instance_name string",
                    "2 action_digest Digest",
                    "3 inline_stdout bool",
                    "4 inline_stderr bool",
                    "5 inline_output_files repeated string",
                    "6 digest_function enum DigestFunction.Value",
                ],
            },
            Message { name: "GetCapabilitiesRequest", fields: &["1 instance_name string"] },
            Message {
                name: "GetTreeRequest",
                fields: &[
                    "1 instance_name string",
                    "2 root_digest Digest",
                    "3 page_size int32",
                    "4 page_token string",
                    "5 digest_function enum DigestFunction.Value",
                ],
            },
            Message {
                name: "GetTreeResponse",
                fields: &["1 directories repeated Directory", "2 next_page_token string"],
            },
            Message { name: "LogFile", fields: &["1 digest Digest", "2 human_readable bool"] },
            Message {
                name: "NodeProperties",
                fields: &[
                    "1 properties repeated NodeProperty",
                    "2 mtime google.protobuf.Timestamp",
                    "3 unix_mode google.protobuf.UInt32Value",
                ],
            },
            Message { name: "NodeProperty", fields: &["1 name string", "2 value string"] },
            Message {
                name: "OutputDirectory",
                fields: &[
                    "1 path string",
                    "3 tree_digest Digest",
                    "4 is_topologically_sorted bool",
                    "5 root_directory_digest Digest",
                ],
            },
            Message {
                name: "OutputFile",
                fields: &[
                    "1 path string",
                    "2 digest Digest",
                    "4 is_executable bool",
                    "5 contents bytes",
                    "7 node_properties NodeProperties",
                ],
            },
            Message {
                name: "OutputSymlink",
                fields: &["1 path string", "2 target string", "4 node_properties NodeProperties"],
            },
            Message { name: "Platform", fields: &["1 properties repeated Platform.Property"] },
            Message { name: "Platform.Property", fields: &["1 name string", "2 value string"] },
            Message {
                name: "PriorityCapabilities",
                fields: &["1 priorities repeated PriorityCapabilities.PriorityRange"],
            },
            Message {
                name: "PriorityCapabilities.PriorityRange",
                fields: &["1 min_priority int32", "2 max_priority int32"],
            },
            Message {
                name: "RepMaxCdcParams",
                fields: &["1 min_chunk_size_bytes uint64", "2 horizon_size_bytes uint64"],
            },
            Message {
                name: "RequestMetadata",
                fields: &[
                    "1 tool_details ToolDetails",
                    "2 action_id string",
                    "3 tool_invocation_id string",
                    "4 correlated_invocations_id string",
                    "5 action_mnemonic string",
                    "6 target_id string",
                    "7 configuration_id string",
                ],
            },
            Message { name: "ResultsCachePolicy", fields: &["1 priority int32"] },
            Message {
                name: "ServerCapabilities",
                fields: &[
                    "1 cache_capabilities CacheCapabilities",
                    "2 execution_capabilities ExecutionCapabilities",
                    "3 deprecated_api_version build.bazel.semver.SemVer",
                    "4 low_api_version build.bazel.semver.SemVer",
                    "5 high_api_version build.bazel.semver.SemVer",
                ],
            },
            Message {
                name: "SymlinkNode",
                fields: &["1 name string", "2 target string", "4 node_properties NodeProperties"],
            },
            Message {
                name: "ToolDetails",
                fields: &["1 tool_name string", "2 tool_version string"],
            },
            Message {
                name: "Tree",
                fields: &["1 root Directory", "2 children repeated Directory"],
            },
            Message {
                name: "UpdateActionResultRequest",
                fields: &[
                    "1 instance_name string",
                    "2 action_digest Digest",
                    "3 action_result ActionResult",
                    "4 results_cache_policy ResultsCachePolicy",
                    "5 digest_function enum DigestFunction.Value",
                ],
            },
            Message { name: "WaitExecutionRequest", fields: &["1 name string"] },
        ],
        enumerations: &[
            Enumeration {
                name: "Command.OutputDirectoryFormat",
                values: &["0 TREE_ONLY", "1 DIRECTORY_ONLY", "2 TREE_AND_DIRECTORY"],
            },
            Enumeration {
                name: "Compressor.Value",
                values: &["0 IDENTITY", "1 ZSTD", "2 DEFLATE", "3 BROTLI"],
            },
            Enumeration {
                name: "DigestFunction.Value",
                values: &[
                    "0 UNKNOWN",
                    "1 SHA256",
                    "2 SHA1",
                    "3 MD5",
                    "4 VSO",
                    "5 SHA384",
                    "6 SHA512",
                    "7 MURMUR3",
                    "8 SHA256TREE",
                    "9 BLAKE3",
                    "10 GITSHA1",
                ],
            },
            Enumeration {
                name: "ExecutionStage.Value",
                values: &["0 UNKNOWN", "1 CACHE_CHECK", "2 QUEUED", "3 EXECUTING", "4 COMPLETED"],
            },
            Enumeration {
                name: "SymlinkAbsolutePathStrategy.Value",
                values: &["0 UNKNOWN", "1 DISALLOWED", "2 ALLOWED"],
            },
        ],
        services: &[
            Service {
                name: "Execution",
                methods: &[
                    "Execute ExecuteRequest > stream google.longrunning.Operation",
                    "WaitExecution WaitExecutionRequest > stream google.longrunning.Operation",
                ],
            },
            Service {
                name: "ActionCache",
                methods: &[
                    "GetActionResult GetActionResultRequest > ActionResult",
                    "UpdateActionResult UpdateActionResultRequest > ActionResult",
                ],
            },
            Service {
                name: "ContentAddressableStorage",
                methods: &[
                    "FindMissingBlobs FindMissingBlobsRequest > FindMissingBlobsResponse",
                    "BatchUpdateBlobs BatchUpdateBlobsRequest > BatchUpdateBlobsResponse",
                    "BatchReadBlobs BatchReadBlobsRequest > BatchReadBlobsResponse",
                    "GetTree GetTreeRequest > stream GetTreeResponse",
                ],
            },
            Service {
                name: "Capabilities",
                methods: &["GetCapabilities GetCapabilitiesRequest > ServerCapabilities"],
            },
        ],
    },
    File {
        name: "google/bytestream/bytestream.proto",
        package: "google.bytestream",
        imports: &[],
        messages: &[
            Message { name: "QueryWriteStatusRequest", fields: &["1 resource_name string"] },
            Message {
                name: "QueryWriteStatusResponse",
                fields: &["1 committed_size int64", "2 complete bool"],
            },
            Message {
                name: "ReadRequest",
                fields: &["1 resource_name string", "2 read_offset int64", "3 read_limit int64"],
            },
            Message { name: "ReadResponse", fields: &["10 data bytes"] },
            Message {
                name: "WriteRequest",
                fields: &[
                    "1 resource_name string",
                    "2 write_offset int64",
                    "3 finish_write bool",
                    "10 data bytes",
                ],
            },
            Message { name: "WriteResponse", fields: &["1 committed_size int64"] },
        ],
        enumerations: &[],
        services: &[Service {
            name: "ByteStream",
            methods: &[
                "Read ReadRequest > stream ReadResponse",
                "Write stream WriteRequest > WriteResponse",
                "QueryWriteStatus QueryWriteStatusRequest > QueryWriteStatusResponse",
            ],
        }],
    },
    File {
        name: "actiond/internal/v1/cas.proto",
        package: "actiond.internal.v1",
        imports: &[
            "build/bazel/remote/execution/v2/remote_execution.proto",
            "google/rpc/status.proto",
        ],
        messages: &[
            Message {
                name: "DeleteBlobsRequest",
                fields: &[
                    "1 instance_name string",
                    "2 blob_digests repeated build.bazel.remote.execution.v2.Digest",
                    "3 digest_function enum build.bazel.remote.execution.v2.DigestFunction.Value",
                ],
            },
            Message {
                name: "DeleteBlobsResponse",
                fields: &["1 responses repeated DeleteBlobsResponse.Response"],
            },
            Message {
                name: "DeleteBlobsResponse.Response",
                fields: &[
                    "1 digest build.bazel.remote.execution.v2.Digest",
                    "2 status google.rpc.Status",
                ],
            },
        ],
        enumerations: &[],
        services: &[Service {
            name: "CAS",
            methods: &["DeleteBlobs DeleteBlobsRequest > DeleteBlobsResponse"],
        }],
    },
];
