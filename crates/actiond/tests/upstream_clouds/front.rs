//! A front of a server of S3 that makes it one of Google's XML API: that has the requests of S3, with a token in place of
//! the signature.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// The answer to a request without a token.
const REFUSED: &[u8] =
    b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The beginning of a token that was made with the key of a service account: a JSON Web Token.
pub(crate) const TOKEN: &str = "eyJ";

/// Listens for the rest of the process, and returns the address. A connection is for one request.
pub(crate) fn start(server: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // The client sees that the connection ends where one of the two is gone.
            std::thread::spawn(move || drop(pass(client, server)));
        }
    });
    Ok(address)
}

/// Passes on one request without its token, and the answer.
fn pass(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut request = BufReader::new(client.try_clone()?);
    let (mut head, mut has_token, mut length) = (String::new(), false, 0);
    loop {
        let mut line = String::new();
        request.read_line(&mut line)?;
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "authorization" => has_token = value.starts_with(&format!("Bearer {TOKEN}")),
            "connection" => {}
            "\r\n" => break,
            "" => return Ok(()),
            name => {
                if name == "content-length" {
                    length = value.trim().parse().map_err(io::Error::other)?;
                }
                head += &line;
            }
        }
    }
    let mut body = request.take(length);
    if !has_token {
        io::copy(&mut body, &mut io::sink())?;
        return client.write_all(REFUSED);
    }
    let mut server = TcpStream::connect(server)?;
    write!(server, "{head}connection: close\r\n\r\n")?;
    io::copy(&mut body, &mut server)?;
    io::copy(&mut server, &mut client).map(drop)
}
