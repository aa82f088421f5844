// client.js ADDRESS [AUTHORITIES.pem]: messages of all sizes, statuses, deadlines, many calls on one connection.
"use strict";
const assert = require("assert");
const fs = require("fs");
const grpc = require("@grpc/grpc-js");

const [address, authorities] = process.argv.slice(2);
const credentials = authorities
  ? grpc.credentials.createSsl(fs.readFileSync(authorities))
  : grpc.credentials.createInsecure();
const client = new grpc.Client(address, credentials, {
  "grpc.max_receive_message_length": -1,
  "grpc.max_send_message_length": -1,
});
const raw = (bytes) => bytes;

function call(method, message, options = {}) {
  return new Promise((resolve, reject) =>
    client.makeUnaryRequest(`/test/${method}`, raw, raw, message, new grpc.Metadata(), options, (error, answer) =>
      error ? reject(error) : resolve(answer)
    )
  );
}

async function refused(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("the call did not fail");
}

async function main() {
  for (const size of [0, 1, 16384, 65536, 1 << 20, 5000000, 40000000]) {
    const message = Buffer.alloc(size, "kinglet");
    assert(message.equals(await call("Echo", message)), `${size} bytes`);
  }
  const failed = await refused(call("Fail", Buffer.from("so nicht: ä % \n")));
  assert.deepStrictEqual([failed.code, failed.details], [grpc.status.INVALID_ARGUMENT, "so nicht: ä % \n"]);
  assert.strictEqual((await refused(call("Panic", Buffer.alloc(0)))).code, grpc.status.INTERNAL);
  const late = await refused(call("Sleep", Buffer.from("2000"), { deadline: Date.now() + 100 }));
  assert.strictEqual(late.code, grpc.status.DEADLINE_EXCEEDED);
  for (let turn = 0; turn < 1000; turn++) {
    await call("Echo", Buffer.from(String(turn)));
  }
  const answers = await Promise.all([...Array(300).keys()].map((at) => call("Echo", Buffer.from(String(at)))));
  answers.forEach((answer, at) => assert.strictEqual(answer.toString(), String(at)));
  client.close();
  console.log("grpc-js: sizes 0 to 40 MB, statuses, deadline, 1000 calls in a row, 300 at once");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
