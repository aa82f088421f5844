//! `grpc.reflection.v1.ServerReflection` and its `v1alpha`: lets tools such as grpcurl call the
//! server without any `.proto` file at hand.

use super::{TfsGrpc, parse};
use crate::{
    models::{Code, Error, Patience},
    proto::{
        SERVED_DESCRIPTORS,
        grpc::reflection::{
            ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
            ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        },
    },
    tensor::Bytes,
};
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

pub(super) fn info(_: &TfsGrpc, message: Bytes, _: &Patience) -> Result<Bytes, Error> {
    static INDEX: LazyLock<Index> = LazyLock::new(|| Index::new(SERVED_DESCRIPTORS));
    let request = parse::<ServerReflectionRequest>(message)?;
    let response = ServerReflectionResponse {
        valid_host: request.host.clone(),
        message_response: Some(INDEX.answer(request.message_request.as_ref())),
        original_request: Some(request),
    };
    Ok(response.encode_to_vec().into())
}

/// The served descriptors by file and by symbol.
#[derive(Default)]
struct Index {
    files: BTreeMap<String, File>,
    /// Full name of a message, enum, enum value, service or method, and the file it stands in.
    symbols: BTreeMap<String, String>,
    services: Vec<String>,
    messages: BTreeSet<String>,
}

struct File {
    descriptor: Bytes,
    imports: Vec<String>,
}

impl Index {
    fn new(descriptors: &[u8]) -> Self {
        let mut index = Self::default();
        // The build script wrote them; were they broken, nothing would be found.
        for file in FileDescriptorSet::decode(descriptors).unwrap_or_default().file {
            index.add(&file);
        }
        index
    }

    fn add(&mut self, file: &FileDescriptorProto) {
        let package = file.package();
        for message in &file.message_type {
            self.add_message(file.name(), package, message);
        }
        for enumeration in &file.enum_type {
            self.add_enum(file.name(), package, enumeration);
        }
        for service in &file.service {
            let name = join(package, service.name());
            for method in &service.method {
                self.symbols.insert(join(&name, method.name()), file.name().to_owned());
            }
            self.symbols.insert(name.clone(), file.name().to_owned());
            self.services.push(name);
        }
        let descriptor = file.encode_to_vec().into();
        self.files.insert(file.name().to_owned(), File { descriptor, imports: file.dependency.clone() });
    }

    fn add_message(&mut self, file: &str, scope: &str, message: &DescriptorProto) {
        let name = join(scope, message.name());
        for nested in &message.nested_type {
            self.add_message(file, &name, nested);
        }
        for enumeration in &message.enum_type {
            self.add_enum(file, &name, enumeration);
        }
        self.messages.insert(name.clone());
        self.symbols.insert(name, file.to_owned());
    }

    fn add_enum(&mut self, file: &str, scope: &str, enumeration: &EnumDescriptorProto) {
        // Values are siblings of their enum.
        let names = enumeration.value.iter().map(|value| value.name()).chain([enumeration.name()]);
        self.symbols.extend(names.map(|name| (join(scope, name), file.to_owned())));
    }

    fn answer(&self, request: Option<&MessageRequest>) -> MessageResponse {
        match request {
            Some(MessageRequest::ListServices(_)) => {
                let service = |name: &String| ServiceResponse { name: name.clone() };
                MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: self.services.iter().map(service).collect(),
                })
            }
            Some(MessageRequest::FileByFilename(name)) if self.files.contains_key(name) => {
                self.with_imports(name)
            }
            Some(MessageRequest::FileByFilename(name)) => not_found(format!("File not found: {name}")),
            Some(MessageRequest::FileContainingSymbol(symbol)) => match self.symbols.get(symbol) {
                Some(file) => self.with_imports(file),
                None => not_found(format!("Symbol not found: {symbol}")),
            },
            Some(MessageRequest::AllExtensionNumbersOfType(name)) if self.messages.contains(name) => {
                MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: Vec::new(),
                })
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                not_found(format!("Type not found: {name}"))
            }
            Some(MessageRequest::FileContainingExtension(_)) => not_found("Extension not found".to_owned()),
            None => failure(Code::InvalidArgument, "The request asks for nothing.".to_owned()),
        }
    }

    /// A file and everything it imports, each once, the file first.
    fn with_imports(&self, name: &str) -> MessageResponse {
        let mut wanted = vec![name];
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        while let Some(name) = wanted.pop() {
            if let Some(file) = self.files.get(name)
                && seen.insert(name)
            {
                found.push(file.descriptor.clone());
                wanted.extend(file.imports.iter().map(String::as_str));
            }
        }
        MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto: found })
    }
}

fn not_found(message: String) -> MessageResponse {
    failure(Code::NotFound, message)
}

fn failure(code: Code, error_message: String) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code as i32, error_message })
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}
