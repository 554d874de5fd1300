// SPDX-License-Identifier: Apache-2.0
//
// connect-node as the server of our client: a program in C that makes one call and prints what came.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { connect, connectNode, Echo } from "./support.js";

const { Code, ConnectError } = connect;
const run = promisify(execFile);

let server;
// What the service saw of the last call.
let last;

function failure(code) {
  const byName = Object.entries(Code).find(([name]) =>
    name.replace(/(?!^)[A-Z]/g, (c) => "_" + c).toLowerCase() === code);
  return new ConnectError(`as asked: ${code}`, byName[1]);
}

function note(context, request) {
  last = { request, echo: context.requestHeader.get("X-Echo"), timeoutMs: context.timeoutMs() };
}

const service = {
  unary(request, context) {
    note(context, request);
    if (request.code) throw failure(request.code);
    return { text: request.text, size: BigInt(request.data.length) };
  },
  async *repeat(request, context) {
    note(context, request);
    for (let index = 0; index < request.count; index++) yield { index, text: request.text };
    if (request.code) throw failure(request.code);
  },
  async collect(requests, context) {
    let index = 0;
    let size = 0n;
    for await (const request of requests) {
      note(context, request);
      if (request.code) throw failure(request.code);
      index++;
      size += BigInt(request.data.length);
    }
    return { text: "all", index, size };
  },
};

before(async () => {
  server = createServer(connectNode.connectNodeAdapter({
    routes: (router) => router.service(Echo, service),
  }));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
});

after(() => new Promise((resolve) => server.close(resolve)));

// Makes one call with our client; resolves to the lines that it printed.
async function call(codec, method, { text = "text", count = 1, code = "", timeoutMs = 0 }) {
  last = undefined;
  const { stdout } = await run(process.env.TORPOR_TEST_CLIENT,
    [String(server.address().port), codec, method, text, String(count), code, String(timeoutMs)]);
  return stdout.trimEnd().split("\n");
}

function both(name, runTest) {
  for (const codec of ["json", "proto"]) test(`${name} (${codec})`, () => runTest(codec));
}

// The kinds that codes of others become in our client.
const kinds = {
  canceled: "canceled",
  unknown: "internal_error",
  invalid_argument: "invalid_request",
  deadline_exceeded: "timeout",
  not_found: "not_found",
  already_exists: "already_exists",
  permission_denied: "forbidden",
  resource_exhausted: "quota_exceeded",
  failed_precondition: "invalid_state",
  aborted: "conflict",
  out_of_range: "range_not_satisfiable",
  unimplemented: "unsupported",
  internal: "internal_error",
  unavailable: "agent_unavailable",
  data_loss: "io_error",
  unauthenticated: "unauthorized",
};

both("unary", async (codec) => {
  assert.deepEqual(await call(codec, "unary", { text: "hé" }), ["message 0 hé 3", "end"]);
  assert.equal(last.echo, "from C");
  assert.equal(last.timeoutMs, undefined);
});

both("unary: the timeout is the server's too", async (codec) => {
  await call(codec, "unary", { timeoutMs: 30000 });
  assert.ok(last.timeoutMs > 20000 && last.timeoutMs <= 30000, String(last.timeoutMs));
});

both("server stream", async (codec) => {
  for (const count of [0, 1, 100]) {
    const want = Array.from({ length: count }, (_, i) => `message ${i} text 0`);
    assert.deepEqual(await call(codec, "repeat", { count }), [...want, "end"]);
  }
  assert.equal(last.echo, "from C");
});

both("client stream", async (codec) => {
  for (const count of [0, 1, 1000]) {
    assert.deepEqual(await call(codec, "collect", { count }),
      [`message ${count} all ${4 * count}`, "end"]);
  }
  assert.equal(last.echo, "from C");
});

both("errors of unary calls", async (codec) => {
  for (const [code, kind] of Object.entries(kinds)) {
    assert.deepEqual(await call(codec, "unary", { code }), [`error ${kind} as asked: ${code}`]);
  }
});

both("errors of server streams, after messages and as the first thing", async (codec) => {
  assert.deepEqual(await call(codec, "repeat", { count: 1, code: "not_found" }),
    ["message 0 text 0", "error not_found as asked: not_found"]);
  assert.deepEqual(await call(codec, "repeat", { count: 0, code: "aborted" }),
    ["error conflict as asked: aborted"]);
});

both("errors of client streams, before all was sent", async (codec) => {
  assert.deepEqual(await call(codec, "collect", { count: 3, code: "not_found" }),
    ["error not_found as asked: not_found"]);
});
