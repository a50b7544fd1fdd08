//! Streams that look at what is read, and whose writes go to the stream inside as they are.

/// Implements `AsyncWrite` for a type by the field with the stream inside; a type parameter is that stream's type.
#[macro_export]
macro_rules! write_through {
    ($outer:ty, $field:ident $(, $stream:ident)?) => {
        impl$(<$stream: ::tokio::io::AsyncWrite + Unpin>)? ::tokio::io::AsyncWrite for $outer {
            fn poll_write(
                self: ::std::pin::Pin<&mut Self>,
                context: &mut ::std::task::Context<'_>,
                data: &[u8],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                let stream = ::std::pin::Pin::new(&mut self.get_mut().$field);
                ::tokio::io::AsyncWrite::poll_write(stream, context, data)
            }

            fn poll_write_vectored(
                self: ::std::pin::Pin<&mut Self>,
                context: &mut ::std::task::Context<'_>,
                slices: &[::std::io::IoSlice<'_>],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                let stream = ::std::pin::Pin::new(&mut self.get_mut().$field);
                ::tokio::io::AsyncWrite::poll_write_vectored(stream, context, slices)
            }

            fn is_write_vectored(&self) -> bool {
                ::tokio::io::AsyncWrite::is_write_vectored(&self.$field)
            }

            fn poll_flush(
                self: ::std::pin::Pin<&mut Self>,
                context: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                let stream = ::std::pin::Pin::new(&mut self.get_mut().$field);
                ::tokio::io::AsyncWrite::poll_flush(stream, context)
            }

            fn poll_shutdown(
                self: ::std::pin::Pin<&mut Self>,
                context: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                let stream = ::std::pin::Pin::new(&mut self.get_mut().$field);
                ::tokio::io::AsyncWrite::poll_shutdown(stream, context)
            }
        }
    };
}
