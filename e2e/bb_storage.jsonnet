// Buildbarn's storage for the tests of upstreams: everything in memory, for everybody.
local storage(blocks, block_bytes) = {
  'local': {
    keyLocationMapInMemory: { entries: 65536 },
    keyLocationMapMaximumGetAttempts: 16,
    keyLocationMapMaximumPutAttempts: 64,
    oldBlocks: 4,
    currentBlocks: blocks,
    newBlocks: 1,
    blocksInMemory: { blockSizeBytes: block_bytes },
  },
};
local everybody = { allow: {} };

{
  grpcServers: [{ listenAddresses: ['ADDRESS'], authenticationPolicy: everybody }],
  maximumMessageSizeBytes: 4 * 1024 * 1024,
  contentAddressableStorage: {
    backend: storage(12, 32 * 1024 * 1024),
    getAuthorizer: everybody,
    putAuthorizer: everybody,
    findMissingAuthorizer: everybody,
  },
  actionCache: {
    backend: storage(4, 1024 * 1024),
    getAuthorizer: everybody,
    putAuthorizer: everybody,
  },
}
