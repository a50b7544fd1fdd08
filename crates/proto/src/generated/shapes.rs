impl Shaped for crate::actiond::internal::v1::Asset {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::Asset>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 3, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 4, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 5, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 6, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::DeleteBlobsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::DeleteBlobsRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::DeleteBlobsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::DeleteBlobsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::delete_blobs_response::Response as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::delete_blobs_response::Response {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::delete_blobs_response::Response>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::RecordOrigin {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::RecordOrigin>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: false, kind: Kind::Text }, Field { number: 4, repeated: false, kind: Kind::Text }, Field { number: 5, repeated: false, kind: Kind::Text }, Field { number: 6, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::ListActionsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::ListActionsRequest>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::ListActionsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::ListActionsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::list_actions_response::Action as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::list_actions_response::Action {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::list_actions_response::Action>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 5, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::RecordOrigin as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::ListRecordsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::ListRecordsRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 3, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::ListRecordsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::ListRecordsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::Record as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::FollowRecordsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::FollowRecordsRequest>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::FollowRecordsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::FollowRecordsResponse>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::Record as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::Record {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::Record>(),
        fields: &[Field { number: 4, repeated: false, kind: Kind::Text }, Field { number: 5, repeated: false, kind: Kind::Text }, Field { number: 6, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 7, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 8, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 10, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::RecordOrigin as Shaped>::SHAPE) }, Field { number: 11, repeated: false, kind: Kind::Text }, Field { number: 13, repeated: false, kind: Kind::Text }, Field { number: 15, repeated: false, kind: Kind::Text }, Field { number: 16, repeated: false, kind: Kind::Text }, Field { number: 17, repeated: false, kind: Kind::Text }, Field { number: 18, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::record::Value as Shaped>::SHAPE) }, Field { number: 19, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::record::Value as Shaped>::SHAPE) }, Field { number: 20, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::record::Value as Shaped>::SHAPE) }, Field { number: 23, repeated: false, kind: Kind::Bytes }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::record::Value {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::record::Value>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::GetTotalsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::GetTotalsRequest>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::GetTotalsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::GetTotalsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::get_totals_response::Total as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::get_totals_response::Total {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::get_totals_response::Total>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::Image {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::Image>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 3, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::ListImagesRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::ListImagesRequest>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::ListImagesResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::ListImagesResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::Image as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::PutImageRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::PutImageRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::Image as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::PutImageResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::PutImageResponse>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::RemoveImageRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::RemoveImageRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::RemoveImageResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::RemoveImageResponse>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::ShellSize {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::ShellSize>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::RunShellRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::RunShellRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::run_shell_request::Start as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Bytes }, Field { number: 3, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::ShellSize as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::run_shell_request::Start {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::run_shell_request::Start>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 4, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::ShellSize as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::RunShellResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::RunShellResponse>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Bytes }, Field { number: 3, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::run_shell_response::End as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::run_shell_response::End {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::run_shell_response::End>(),
        fields: &[Field { number: 2, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, Field { number: 3, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::GetUsageRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::GetUsageRequest>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::Usage {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::Usage>(),
        fields: &[Field { number: 3, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::usage::Share as Shaped>::SHAPE) }, Field { number: 4, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::usage::Share as Shaped>::SHAPE) }, Field { number: 5, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::usage::Share as Shaped>::SHAPE) }, Field { number: 6, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::usage::Targets as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::usage::Share {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::usage::Share>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::usage::Targets {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::usage::Targets>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::usage::Share as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::usage::Share as Shaped>::SHAPE) }, Field { number: 4, repeated: false, kind: Kind::Message(<crate::actiond::internal::v1::usage::Share as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::ListBlobsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::ListBlobsRequest>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::ListBlobsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::ListBlobsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::actiond::internal::v1::list_blobs_response::Blob as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::list_blobs_response::Blob {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::list_blobs_response::Blob>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::actiond::internal::v1::CollectGarbageRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::CollectGarbageRequest>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::CollectGarbageProgress {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::CollectGarbageProgress>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::VerifyRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::VerifyRequest>(),
        fields: &[],
    };
}
impl Shaped for crate::actiond::internal::v1::VerifyProgress {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::internal::v1::VerifyProgress>(),
        fields: &[Field { number: 5, repeated: true, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::actiond::v1::ResourceUsage {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::actiond::v1::ResourceUsage>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 2, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 3, repeated: false, kind: Kind::Message(&OTHER) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::asset::v1::Qualifier {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::asset::v1::Qualifier>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::asset::v1::FetchBlobRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::asset::v1::FetchBlobRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 3, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 4, repeated: true, kind: Kind::Text }, Field { number: 5, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::asset::v1::Qualifier as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::asset::v1::FetchBlobResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::asset::v1::FetchBlobResponse>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::asset::v1::Qualifier as Shaped>::SHAPE) }, Field { number: 4, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 5, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::asset::v1::FetchDirectoryRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::asset::v1::FetchDirectoryRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 3, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 4, repeated: true, kind: Kind::Text }, Field { number: 5, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::asset::v1::Qualifier as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::asset::v1::FetchDirectoryResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::asset::v1::FetchDirectoryResponse>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::asset::v1::Qualifier as Shaped>::SHAPE) }, Field { number: 4, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 5, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::asset::v1::PushBlobRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::asset::v1::PushBlobRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Text }, Field { number: 3, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::asset::v1::Qualifier as Shaped>::SHAPE) }, Field { number: 4, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 5, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 6, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 7, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::asset::v1::PushBlobResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::asset::v1::PushBlobResponse>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::asset::v1::PushDirectoryRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::asset::v1::PushDirectoryRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Text }, Field { number: 3, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::asset::v1::Qualifier as Shaped>::SHAPE) }, Field { number: 4, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 5, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 6, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 7, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::asset::v1::PushDirectoryResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::asset::v1::PushDirectoryResponse>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::Action {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::Action>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 6, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 9, repeated: false, kind: Kind::Bytes }, Field { number: 10, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Platform as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::Command {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::Command>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::command::EnvironmentVariable as Shaped>::SHAPE) }, Field { number: 3, repeated: true, kind: Kind::Text }, Field { number: 4, repeated: true, kind: Kind::Text }, Field { number: 7, repeated: true, kind: Kind::Text }, Field { number: 5, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Platform as Shaped>::SHAPE) }, Field { number: 6, repeated: false, kind: Kind::Text }, Field { number: 8, repeated: true, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::command::EnvironmentVariable {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::command::EnvironmentVariable>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::Platform {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::Platform>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::platform::Property as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::platform::Property {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::platform::Property>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::Directory {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::Directory>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::FileNode as Shaped>::SHAPE) }, Field { number: 2, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::DirectoryNode as Shaped>::SHAPE) }, Field { number: 3, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::SymlinkNode as Shaped>::SHAPE) }, Field { number: 5, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::NodeProperties as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::NodeProperty {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::NodeProperty>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::NodeProperties {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::NodeProperties>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::NodeProperty as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 3, repeated: false, kind: Kind::Message(&OTHER) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::FileNode {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::FileNode>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 6, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::NodeProperties as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::DirectoryNode {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::DirectoryNode>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::SymlinkNode {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::SymlinkNode>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 4, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::NodeProperties as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::Digest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::Digest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ExecutedActionMetadata {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ExecutedActionMetadata>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 3, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 4, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 5, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 6, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 7, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 8, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 12, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 9, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 10, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 11, repeated: true, kind: Kind::Message(&OTHER) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ActionResult {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ActionResult>(),
        fields: &[Field { number: 2, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::OutputFile as Shaped>::SHAPE) }, Field { number: 10, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::OutputSymlink as Shaped>::SHAPE) }, Field { number: 12, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::OutputSymlink as Shaped>::SHAPE) }, Field { number: 3, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::OutputDirectory as Shaped>::SHAPE) }, Field { number: 11, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::OutputSymlink as Shaped>::SHAPE) }, Field { number: 5, repeated: false, kind: Kind::Bytes }, Field { number: 6, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 7, repeated: false, kind: Kind::Bytes }, Field { number: 8, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 9, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::ExecutedActionMetadata as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::OutputFile {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::OutputFile>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 5, repeated: false, kind: Kind::Bytes }, Field { number: 7, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::NodeProperties as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::Tree {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::Tree>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Directory as Shaped>::SHAPE) }, Field { number: 2, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Directory as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::OutputDirectory {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::OutputDirectory>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 5, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::OutputSymlink {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::OutputSymlink>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 4, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::NodeProperties as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ExecutionPolicy {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ExecutionPolicy>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ResultsCachePolicy {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ResultsCachePolicy>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ExecuteRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ExecuteRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 6, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 7, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::ExecutionPolicy as Shaped>::SHAPE) }, Field { number: 8, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::ResultsCachePolicy as Shaped>::SHAPE) }, Field { number: 12, repeated: true, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::LogFile {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::LogFile>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ExecuteResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ExecuteResponse>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::ActionResult as Shaped>::SHAPE) }, Field { number: 3, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, Field { number: 4, repeated: true, kind: Kind::Message(&OTHER) }, Field { number: 5, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ExecutionStage {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ExecutionStage>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ExecuteOperationMetadata {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ExecuteOperationMetadata>(),
        fields: &[Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 3, repeated: false, kind: Kind::Text }, Field { number: 4, repeated: false, kind: Kind::Text }, Field { number: 5, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::ExecutedActionMetadata as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::WaitExecutionRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::WaitExecutionRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::GetActionResultRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::GetActionResultRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 5, repeated: true, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::UpdateActionResultRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::UpdateActionResultRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 3, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::ActionResult as Shaped>::SHAPE) }, Field { number: 4, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::ResultsCachePolicy as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::FindMissingBlobsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::FindMissingBlobsRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::FindMissingBlobsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::FindMissingBlobsResponse>(),
        fields: &[Field { number: 2, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::BatchUpdateBlobsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::BatchUpdateBlobsRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::batch_update_blobs_request::Request as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::batch_update_blobs_request::Request {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::batch_update_blobs_request::Request>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Bytes }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::BatchUpdateBlobsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::BatchUpdateBlobsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::batch_update_blobs_response::Response as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::batch_update_blobs_response::Response {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::batch_update_blobs_response::Response>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::BatchReadBlobsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::BatchReadBlobsRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 3, repeated: true, kind: Kind::Number }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::BatchReadBlobsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::BatchReadBlobsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::batch_read_blobs_response::Response as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::batch_read_blobs_response::Response {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::batch_read_blobs_response::Response>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Bytes }, Field { number: 3, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::GetTreeRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::GetTreeRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 4, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::GetTreeResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::GetTreeResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Directory as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::SplitBlobRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::SplitBlobRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::SplitBlobResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::SplitBlobResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::SpliceBlobRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::SpliceBlobRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, Field { number: 3, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::SpliceBlobResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::SpliceBlobResponse>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::Digest as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::GetCapabilitiesRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::GetCapabilitiesRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ServerCapabilities {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ServerCapabilities>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::CacheCapabilities as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::ExecutionCapabilities as Shaped>::SHAPE) }, Field { number: 3, repeated: false, kind: Kind::Message(<crate::build::bazel::semver::SemVer as Shaped>::SHAPE) }, Field { number: 4, repeated: false, kind: Kind::Message(<crate::build::bazel::semver::SemVer as Shaped>::SHAPE) }, Field { number: 5, repeated: false, kind: Kind::Message(<crate::build::bazel::semver::SemVer as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::DigestFunction {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::DigestFunction>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ChunkingFunction {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ChunkingFunction>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ActionCacheUpdateCapabilities {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ActionCacheUpdateCapabilities>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::PriorityCapabilities {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::PriorityCapabilities>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::priority_capabilities::PriorityRange as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::priority_capabilities::PriorityRange {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::priority_capabilities::PriorityRange>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::SymlinkAbsolutePathStrategy {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::SymlinkAbsolutePathStrategy>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::Compressor {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::Compressor>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::CacheCapabilities {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::CacheCapabilities>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Number }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::ActionCacheUpdateCapabilities as Shaped>::SHAPE) }, Field { number: 3, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::PriorityCapabilities as Shaped>::SHAPE) }, Field { number: 6, repeated: true, kind: Kind::Number }, Field { number: 7, repeated: true, kind: Kind::Number }, Field { number: 11, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::FastCdc2020Params as Shaped>::SHAPE) }, Field { number: 12, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::RepMaxCdcParams as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::FastCdc2020Params {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::FastCdc2020Params>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::RepMaxCdcParams {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::RepMaxCdcParams>(),
        fields: &[],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ExecutionCapabilities {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ExecutionCapabilities>(),
        fields: &[Field { number: 3, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::PriorityCapabilities as Shaped>::SHAPE) }, Field { number: 4, repeated: true, kind: Kind::Text }, Field { number: 5, repeated: true, kind: Kind::Number }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::ToolDetails {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::ToolDetails>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::remote::execution::v2::RequestMetadata {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::remote::execution::v2::RequestMetadata>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(<crate::build::bazel::remote::execution::v2::ToolDetails as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: false, kind: Kind::Text }, Field { number: 4, repeated: false, kind: Kind::Text }, Field { number: 5, repeated: false, kind: Kind::Text }, Field { number: 6, repeated: false, kind: Kind::Text }, Field { number: 7, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::build::bazel::semver::SemVer {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::build::bazel::semver::SemVer>(),
        fields: &[Field { number: 4, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::bytestream::ReadRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::bytestream::ReadRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::bytestream::ReadResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::bytestream::ReadResponse>(),
        fields: &[Field { number: 10, repeated: false, kind: Kind::Bytes }, ],
    };
}
impl Shaped for crate::google::bytestream::WriteRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::bytestream::WriteRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 10, repeated: false, kind: Kind::Bytes }, ],
    };
}
impl Shaped for crate::google::bytestream::WriteResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::bytestream::WriteResponse>(),
        fields: &[],
    };
}
impl Shaped for crate::google::bytestream::QueryWriteStatusRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::bytestream::QueryWriteStatusRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::bytestream::QueryWriteStatusResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::bytestream::QueryWriteStatusResponse>(),
        fields: &[],
    };
}
impl Shaped for crate::google::longrunning::Operation {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::longrunning::Operation>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(&OTHER) }, Field { number: 4, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, Field { number: 5, repeated: false, kind: Kind::Message(&OTHER) }, ],
    };
}
impl Shaped for crate::google::longrunning::GetOperationRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::longrunning::GetOperationRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::longrunning::ListOperationsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::longrunning::ListOperationsRequest>(),
        fields: &[Field { number: 4, repeated: false, kind: Kind::Text }, Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::longrunning::ListOperationsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::longrunning::ListOperationsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::google::longrunning::Operation as Shaped>::SHAPE) }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: true, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::longrunning::CancelOperationRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::longrunning::CancelOperationRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::longrunning::DeleteOperationRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::longrunning::DeleteOperationRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::longrunning::WaitOperationRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::longrunning::WaitOperationRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Message(&OTHER) }, ],
    };
}
impl Shaped for crate::google::longrunning::OperationInfo {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::longrunning::OperationInfo>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::rpc::ErrorInfo {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::ErrorInfo>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: true, kind: Kind::Message(&OTHER) }, ],
    };
}
impl Shaped for crate::google::rpc::RetryInfo {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::RetryInfo>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Message(&OTHER) }, ],
    };
}
impl Shaped for crate::google::rpc::DebugInfo {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::DebugInfo>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::rpc::QuotaFailure {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::QuotaFailure>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::google::rpc::quota_failure::Violation as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::google::rpc::quota_failure::Violation {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::quota_failure::Violation>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: false, kind: Kind::Text }, Field { number: 4, repeated: false, kind: Kind::Text }, Field { number: 5, repeated: false, kind: Kind::Text }, Field { number: 6, repeated: true, kind: Kind::Message(&OTHER) }, ],
    };
}
impl Shaped for crate::google::rpc::PreconditionFailure {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::PreconditionFailure>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::google::rpc::precondition_failure::Violation as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::google::rpc::precondition_failure::Violation {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::precondition_failure::Violation>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::rpc::BadRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::BadRequest>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::google::rpc::bad_request::FieldViolation as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::google::rpc::bad_request::FieldViolation {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::bad_request::FieldViolation>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: false, kind: Kind::Text }, Field { number: 4, repeated: false, kind: Kind::Message(<crate::google::rpc::LocalizedMessage as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::google::rpc::RequestInfo {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::RequestInfo>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::rpc::ResourceInfo {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::ResourceInfo>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: false, kind: Kind::Text }, Field { number: 4, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::rpc::Help {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::Help>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::google::rpc::help::Link as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::google::rpc::help::Link {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::help::Link>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::rpc::LocalizedMessage {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::LocalizedMessage>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
impl Shaped for crate::google::rpc::Status {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::google::rpc::Status>(),
        fields: &[Field { number: 2, repeated: false, kind: Kind::Text }, Field { number: 3, repeated: true, kind: Kind::Message(&OTHER) }, ],
    };
}
impl Shaped for crate::encoded::actiond::DeleteBlobsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::actiond::DeleteBlobsRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Bytes }, ],
    };
}
impl Shaped for crate::encoded::actiond::DeleteBlobsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::actiond::DeleteBlobsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::encoded::actiond::delete_blobs_response::Response as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::encoded::actiond::delete_blobs_response::Response {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::actiond::delete_blobs_response::Response>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Bytes }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::encoded::reapi::FindMissingBlobsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::reapi::FindMissingBlobsRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Bytes }, ],
    };
}
impl Shaped for crate::encoded::reapi::FindMissingBlobsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::reapi::FindMissingBlobsResponse>(),
        fields: &[Field { number: 2, repeated: true, kind: Kind::Bytes }, ],
    };
}
impl Shaped for crate::encoded::reapi::BatchUpdateBlobsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::reapi::BatchUpdateBlobsRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Message(<crate::encoded::reapi::batch_update_blobs_request::Request as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::encoded::reapi::batch_update_blobs_request::Request {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::reapi::batch_update_blobs_request::Request>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Bytes }, Field { number: 2, repeated: false, kind: Kind::Bytes }, ],
    };
}
impl Shaped for crate::encoded::reapi::BatchUpdateBlobsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::reapi::BatchUpdateBlobsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::encoded::reapi::batch_update_blobs_response::Response as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::encoded::reapi::batch_update_blobs_response::Response {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::reapi::batch_update_blobs_response::Response>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Bytes }, Field { number: 2, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::encoded::reapi::BatchReadBlobsRequest {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::reapi::BatchReadBlobsRequest>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Text }, Field { number: 2, repeated: true, kind: Kind::Bytes }, Field { number: 3, repeated: true, kind: Kind::Number }, ],
    };
}
impl Shaped for crate::encoded::reapi::BatchReadBlobsResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::reapi::BatchReadBlobsResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Message(<crate::encoded::reapi::batch_read_blobs_response::Response as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::encoded::reapi::batch_read_blobs_response::Response {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::reapi::batch_read_blobs_response::Response>(),
        fields: &[Field { number: 1, repeated: false, kind: Kind::Bytes }, Field { number: 2, repeated: false, kind: Kind::Bytes }, Field { number: 3, repeated: false, kind: Kind::Message(<crate::google::rpc::Status as Shaped>::SHAPE) }, ],
    };
}
impl Shaped for crate::encoded::reapi::GetTreeResponse {
    const SHAPE: &'static Shape = &Shape {
        size_bytes: size_of::<crate::encoded::reapi::GetTreeResponse>(),
        fields: &[Field { number: 1, repeated: true, kind: Kind::Bytes }, Field { number: 2, repeated: false, kind: Kind::Text }, ],
    };
}
