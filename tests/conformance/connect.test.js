// SPDX-License-Identifier: Apache-2.0
//
// connect-node as a client of our server: every kind of call, in both encodings.
import assert from "node:assert/strict";
import { Agent } from "node:http";
import { after, before, test } from "node:test";
import { connect, connectNode, Echo, newTag, startServer } from "./support.js";

const { Code, ConnectError, createClient } = connect;
const MiB = 1 << 20;

let server;
const agent = new Agent({ keepAlive: true });
const clients = {};

before(async () => {
  server = await startServer();
  for (const [name, useBinaryFormat] of [["json", false], ["proto", true]]) {
    const transport = connectNode.createConnectTransport({
      baseUrl: server.url,
      httpVersion: "1.1",
      useBinaryFormat,
      nodeOptions: { agent },
    });
    clients[name] = createClient(Echo, transport);
  }
});

after(async () => {
  agent.destroy();
  await server.stop();
});

// One test for each encoding.
function both(name, run) {
  for (const codec of ["json", "proto"]) {
    test(`${name} (${codec})`, () => run(clients[codec], codec));
  }
}

async function rejection(promise) {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return error;
  }
  assert.fail("the call went well");
}

// Everything of a stream, and the error that ended it.
async function drain(stream) {
  const messages = [];
  try {
    for await (const message of stream) messages.push(message);
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return { messages, error };
  }
  return { messages };
}

const pattern = (n) => Uint8Array.from({ length: n }, (_, i) => (i * 7) % 256);

both("unary: text and bytes come back", async (client) => {
  const data = pattern(256);
  const answer = await client.unary({ text: "hé \u{1F600} \u0000 \"", data });
  assert.equal(answer.text, "hé \u{1F600} \u0000 \"");
  assert.deepEqual(answer.data, data);
  assert.equal(answer.size, 256n);
  assert.equal(answer.timeoutMs, -1n);
});

both("unary: an empty message", async (client) => {
  const answer = await client.unary({});
  assert.equal(answer.text, "");
  assert.equal(answer.data.length, 0);
});

both("unary: 1 MiB comes back", async (client) => {
  const data = pattern(MiB);
  const answer = await client.unary({ data });
  assert.ok(Buffer.from(answer.data).equals(data));
});

both("unary: fifty calls side by side", async (client) => {
  const calls = Array.from({ length: 50 }, (_, i) => client.unary({ text: `call ${i}`, delayMs: 5 }));
  const answers = await Promise.all(calls);
  answers.forEach((answer, i) => assert.equal(answer.text, `call ${i}`));
});

both("unary: headers go both ways", async (client) => {
  let reply;
  await client.unary({}, {
    headers: { "X-Echo": "some value" },
    onHeader: (headers) => (reply = headers.get("X-Echo-Reply")),
  });
  assert.equal(reply, "some value");
});

// "unknown" and "data_loss" have no kind of ours and leave as "internal".
const codes = Object.entries({
  canceled: Code.Canceled,
  unknown: Code.Internal,
  invalid_argument: Code.InvalidArgument,
  deadline_exceeded: Code.DeadlineExceeded,
  not_found: Code.NotFound,
  already_exists: Code.AlreadyExists,
  permission_denied: Code.PermissionDenied,
  resource_exhausted: Code.ResourceExhausted,
  failed_precondition: Code.FailedPrecondition,
  aborted: Code.Aborted,
  out_of_range: Code.OutOfRange,
  unimplemented: Code.Unimplemented,
  internal: Code.Internal,
  unavailable: Code.Unavailable,
  data_loss: Code.Internal,
  unauthenticated: Code.Unauthenticated,
});

both("unary: every code", async (client) => {
  for (const [code, want] of codes) {
    const error = await rejection(client.unary({ code }));
    assert.equal(error.code, want, code);
    assert.equal(error.rawMessage, `as asked: ${code}`);
    assert.ok(error.metadata.get("Torpor-Error"), code);
  }
});

both("server stream: every code, after messages and as the first thing", async (client) => {
  for (const [code, want] of codes) {
    for (const count of [0, 2]) {
      const { messages, error } = await drain(client.repeat({ count, code }));
      assert.equal(messages.length, count);
      assert.equal(error?.code, want, code);
      assert.equal(error.rawMessage, `as asked: ${code}`);
    }
  }
});

both("client stream: every code", async (client) => {
  for (const [code, want] of codes) {
    const error = await rejection(client.collect((async function* () {
      yield { text: "fine" };
      yield { code };
    })()));
    assert.equal(error.code, want, code);
    assert.equal(error.rawMessage, `as asked: ${code}`);
  }
});

both("errors name the field in their metadata", async (client) => {
  const { error } = await drain(client.repeat({ size: -1 }));
  assert.equal(error.code, Code.InvalidArgument);
  assert.equal(error.metadata.get("Torpor-Field"), "size");
  assert.equal(error.metadata.get("Torpor-Error"), "invalid_request");
});

both("server stream: all messages, in order", async (client) => {
  let reply;
  const { messages, error } = await drain(client.repeat({ count: 500, size: 100, text: "m" }, {
    headers: { "X-Echo": "on a stream" },
    onHeader: (headers) => (reply = headers.get("X-Echo-Reply")),
  }));
  assert.equal(error, undefined);
  assert.equal(messages.length, 500);
  messages.forEach((message, i) => assert.equal(message.index, i));
  assert.equal(messages[499].data.length, 100);
  assert.equal(reply, "on a stream");
});

both("server stream: no messages", async (client) => {
  assert.deepEqual(await drain(client.repeat({ count: 0 })), { messages: [] });
});

both("server stream: eight messages of 1 MiB", async (client) => {
  const { messages, error } = await drain(client.repeat({ count: 8, size: MiB }));
  assert.equal(error, undefined);
  assert.deepEqual(messages.map((message) => message.data.length), Array(8).fill(MiB));
});

// The next message is only sent when the one before has been seen here.
both("server stream: a message arrives when it is sent", async (client) => {
  const tag = newTag();
  let next = 0;
  for await (const message of client.repeat({ count: 5, tag, gated: true })) {
    assert.equal(message.index, next++);
    await client.release({ tag });
  }
  assert.equal(next, 5);
});

both("client stream: any number of messages", async (client) => {
  for (const count of [0, 1, 1000]) {
    const answer = await client.collect((async function* () {
      for (let i = 0; i < count; i++) yield { data: pattern(100) };
    })());
    assert.equal(answer.index, count);
    assert.equal(answer.size, BigInt(count * 100));
  }
});

both("client stream: eight messages of 1 MiB", async (client) => {
  const data = pattern(MiB);
  const answer = await client.collect((async function* () {
    for (let i = 0; i < 8; i++) yield { data };
  })());
  assert.equal(answer.size, BigInt(8 * MiB));
});

both("client stream: the server may answer before the end", async (client) => {
  let sent = 0;
  const error = await rejection(client.collect((async function* () {
    yield { code: "not_found" };
    for (; sent < 100; sent++) yield { data: pattern(1000) };
  })()));
  assert.equal(error.code, Code.NotFound);
});

both("client stream: headers go both ways", async (client) => {
  let reply;
  await client.collect((async function* () { yield {}; })(), {
    headers: { "X-Echo": "up" },
    onHeader: (headers) => (reply = headers.get("X-Echo-Reply")),
  });
  assert.equal(reply, "up");
});

both("a message that is too large is refused", async (client) => {
  const data = new Uint8Array(9 * MiB);
  assert.equal((await rejection(client.unary({ data }))).code, Code.ResourceExhausted);
});

both("timeout: the server knows it", async (client) => {
  const answer = await client.unary({}, { timeoutMs: 30000 });
  assert.ok(answer.timeoutMs > 20000n && answer.timeoutMs <= 30000n, String(answer.timeoutMs));
});

both("timeout: a unary call", async (client) => {
  const tag = newTag();
  const error = await rejection(client.unary({ delayMs: 20000, tag }, { timeoutMs: 500 }));
  assert.equal(error.code, Code.DeadlineExceeded);
  // By its own clock, or because we hung up: whichever comes first.
  const { code } = await client.outcome({ tag });
  assert.match(code, /^(deadline_exceeded|canceled)$/);
});

both("timeout: a server stream", async (client) => {
  const tag = newTag();
  const stream = client.repeat({ count: 2, delayMs: 20000, tag }, { timeoutMs: 500 });
  const { messages, error } = await drain(stream);
  assert.equal(messages.length, 1);
  assert.equal(error.code, Code.DeadlineExceeded);
  assert.match((await client.outcome({ tag })).code, /^(deadline_exceeded|canceled)$/);
});

both("timeout: a client stream", async (client) => {
  const tag = newTag();
  let stop;
  const stopped = new Promise((resolve) => (stop = resolve));
  const error = await rejection(client.collect((async function* () {
    yield { tag };
    await stopped;
  })(), { timeoutMs: 500 }));
  assert.equal(error.code, Code.DeadlineExceeded);
  assert.match((await client.outcome({ tag })).code, /^(deadline_exceeded|canceled)$/);
  stop();
});

both("abort: the server notices in a unary call", async (client) => {
  const tag = newTag();
  const abort = new AbortController();
  const call = rejection(client.unary({ delayMs: 20000, tag }, { signal: abort.signal }));
  await client.begun({ tag });
  abort.abort();
  assert.equal((await call).code, Code.Canceled);
  assert.equal((await client.outcome({ tag })).code, "canceled");
});

both("abort: the server notices in a server stream", async (client) => {
  const tag = newTag();
  const abort = new AbortController();
  const stream = client.repeat({ count: 2, delayMs: 20000, tag }, { signal: abort.signal });
  const messages = stream[Symbol.asyncIterator]();
  assert.equal((await messages.next()).value.index, 0);
  abort.abort();
  assert.equal((await rejection(messages.next())).code, Code.Canceled);
  assert.deepEqual((({ code, index }) => ({ code, index }))(await client.outcome({ tag })),
    { code: "canceled", index: 1 });
});

both("abort: the server notices in a client stream", async (client) => {
  const tag = newTag();
  const abort = new AbortController();
  const call = rejection(client.collect((async function* () {
    yield { tag };
    yield { text: "second" };
    await client.begun({ tag, count: 2 });
    abort.abort();
    await new Promise(() => {});
  })(), { signal: abort.signal }));
  assert.equal((await call).code, Code.Canceled);
  const { code, index } = await client.outcome({ tag });
  assert.equal(code, "canceled");
  assert.equal(index, 2);
});

both("unknown methods are unimplemented", async (_, codec) => {
  const response = await fetch(`${server.url}/conformance.Echo/Nothing`, {
    method: "POST",
    headers: { "Content-Type": `application/${codec}` },
    body: "{}",
  });
  assert.equal(response.status, 404);
});
