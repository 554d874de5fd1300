// SPDX-License-Identifier: Apache-2.0
//
// What the conformance tests share: the packages, which live outside of this folder, and the server
// under test. Tests are never nested, because run-tests.sh counts the outermost ones.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

export const require = createRequire(process.env.TORPOR_NODE_HOME + "/");
export const connect = require("@connectrpc/connect");
export const connectNode = require("@connectrpc/connect-node");
export const protobuf = require("@bufbuild/protobuf");
const { FileDescriptorSetSchema } = require("@bufbuild/protobuf/wkt");

// The service of echo.proto, as protoc describes it.
export const Echo = protobuf
  .createFileRegistry(
    protobuf.fromBinary(FileDescriptorSetSchema, readFileSync(process.env.TORPOR_TEST_DESCRIPTORS)),
  )
  .getService("conformance.Echo");

// Starts the server in C. Resolves to its port and a function that stops it and checks that it
// ended well (the sanitizers have their say at its end).
export async function startServer() {
  const child = spawn(process.env.TORPOR_TEST_SERVER, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.once("exit", (code, signal) => resolve(signal ?? code)));
  const lines = createInterface(child.stdout);
  const first = await Promise.race([
    new Promise((resolve) => lines.once("line", resolve)),
    ended.then((code) => `ended with ${code}`),
  ]);
  const port = Number(/^listening (\d+)$/.exec(first)?.[1]);
  assert.ok(port > 0, `the server says: ${first}`);
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    async stop() {
      child.stdin.end();
      assert.equal(await ended, 0, "the server's exit status");
    },
  };
}

// Names that no other test of this file uses.
let tags = 0;
export function newTag() {
  return `tag-${++tags}`;
}
