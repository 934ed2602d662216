// Flash in front of its model (dpi/flash.cpp), on the port of the storage DMA device.

module flash (
    input  wire         clk,
    input  wire         rst,
    input  wire         req_valid,
    output reg          req_ready,
    input  wire [31:0]  req_offset,
    input  wire [31:0]  req_length,
    input  wire         req_to_flash,
    output reg          rdata_valid,
    input  wire         rdata_ready,
    output reg  [127:0] rdata_data,
    input  wire         wdata_valid,
    output reg          wdata_ready,
    input  wire [127:0] wdata_data,
    output reg          wdone
);
    import "DPI-C" function void flex_flash_request(input int offset, input int length, input bit to_flash);
    import "DPI-C" function bit flex_flash_read(output bit [127:0] data);
    import "DPI-C" function void flex_flash_write(input bit [127:0] data);
    import "DPI-C" function int flex_flash_status();

    reg busy;

    always_ff @(posedge clk) begin : model
        int status;
        bit [127:0] data;
        if (rst) begin
            {req_ready, rdata_valid, wdata_ready, wdone, busy} <= '0;
        end else if (busy || req_valid || !req_ready || rdata_valid || wdone) begin
            if (req_valid && req_ready) flex_flash_request(int'(req_offset), int'(req_length), req_to_flash);
            if (wdata_valid && wdata_ready) flex_flash_write(wdata_data);
            if (!rdata_valid || rdata_ready) begin
                rdata_valid <= flex_flash_read(data);
                rdata_data <= data;
            end
            status = flex_flash_status();
            req_ready <= status[0];
            wdata_ready <= status[1];
            wdone <= status[2];
            busy <= status[3];
        end
    end
endmodule
