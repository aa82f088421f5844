//! `tonic-client URL [AUTHORITIES.pem]`: messages of all sizes, statuses, deadlines, compression, many calls at once.

use std::time::Duration;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

async fn call(client: &Grpc<Channel>, path: &'static str, request: Request<Vec<u8>>) -> Result<Vec<u8>, Status> {
    let mut client = client.clone();
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    client.unary(request, PathAndQuery::from_static(path), Raw).await.map(|answer| answer.into_inner())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut endpoint = Endpoint::from_shared(arguments.next().ok_or("usage: tonic-client URL [PEM]")?)?;
    if let Some(authorities) = arguments.next() {
        let certificate = Certificate::from_pem(std::fs::read(authorities)?);
        endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(certificate).domain_name("localhost"))?;
    }
    let client = Grpc::new(endpoint.connect().await?).max_decoding_message_size(1 << 30);

    for size in [0, 1, 16_384, 65_536, 1 << 20, 5_000_000, 40_000_000] {
        let message: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8).collect();
        assert_eq!(call(&client, "/test/Echo", Request::new(message.clone())).await?, message, "{size} bytes");
    }
    let zipped = client.clone().send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    let message = b"kinglet".repeat(100_000);
    assert_eq!(call(&zipped, "/test/Echo", Request::new(message.clone())).await?, message, "gzip both ways");

    let failed = call(&client, "/test/Fail", Request::new("so nicht: ä % \n".into())).await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::InvalidArgument, "so nicht: ä % \n"));
    assert_eq!(call(&client, "/test/Panic", Request::new(Vec::new())).await.unwrap_err().code(), Code::Internal);

    let mut slow = Request::new(b"2000".to_vec());
    slow.set_timeout(Duration::from_millis(100));
    let late = call(&client, "/test/Sleep", slow).await.unwrap_err().code();
    assert!(matches!(late, Code::DeadlineExceeded | Code::Cancelled), "{late:?}");

    for _ in 0..10 {
        let calls: Vec<_> = (0..50_u8).map(|at| {
            let client = client.clone();
            async move { call(&client, "/test/Echo", Request::new(vec![at; 1000])).await }
        }).collect();
        for (at, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await?, vec![at as u8; 1000]);
        }
    }
    println!("tonic: sizes 0 to 40 MB, gzip, statuses, deadline, 500 calls");
    Ok(())
}
