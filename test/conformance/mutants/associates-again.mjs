import { wrap } from './wrap.mjs';

export const mutant = { about: 'says nothing about a second association', cases: ['ASSOC-02/file', 'ASSOC-02/socket'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      associate(handle, key) {
        try {
          super.associate(handle, key);
        } catch (error) {
          if (error.code !== 'ERR_ALREADY_ASSOCIATED') throw error;
        }
      }
    },
});
