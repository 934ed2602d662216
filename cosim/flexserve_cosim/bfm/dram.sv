// AXI4 slave in front of the memory model (dpi/dram.cpp): one read and one write beat per cycle.

module dram #(
    parameter int ID_WIDTH = 6
) (
    input  wire                clk,
    input  wire                rst,
    input  wire [ID_WIDTH-1:0] awid,
    input  wire [31:0]         awaddr,
    input  wire [7:0]          awlen,
    input  wire [2:0]          awsize,
    input  wire [1:0]          awburst,
    input  wire                awvalid,
    output reg                 awready,
    input  wire [127:0]        wdata,
    input  wire [15:0]         wstrb,
    input  wire                wlast,
    input  wire                wvalid,
    output reg                 wready,
    output reg  [ID_WIDTH-1:0] bid,
    output reg  [1:0]          bresp,
    output reg                 bvalid,
    input  wire                bready,
    input  wire [ID_WIDTH-1:0] arid,
    input  wire [31:0]         araddr,
    input  wire [7:0]          arlen,
    input  wire [2:0]          arsize,
    input  wire [1:0]          arburst,
    input  wire                arvalid,
    output reg                 arready,
    output reg  [ID_WIDTH-1:0] rid,
    output reg  [127:0]        rdata,
    output reg  [1:0]          rresp,
    output reg                 rlast,
    output reg                 rvalid,
    input  wire                rready
);
    import "DPI-C" function void flex_dram_ar(
        input int id, input int address, input int length, input int size, input int burst);
    import "DPI-C" function void flex_dram_aw(
        input int id, input int address, input int length, input int size, input int burst);
    import "DPI-C" function int flex_dram_w(input bit [127:0] data, input int strobe, input bit last);
    import "DPI-C" function bit flex_dram_r(
        output int id, output bit [127:0] data, output int response, output bit last);
    import "DPI-C" function bit flex_dram_b(output int id, output int response);
    import "DPI-C" function int flex_dram_status();

    reg busy;

    always_ff @(posedge clk) begin : model
        int id, response, status;
        bit [127:0] data;
        bit last;
        if (rst) begin
            {arready, awready, wready, bvalid, rvalid, busy} <= '0;
        end else if (busy || arvalid || awvalid || !arready || rvalid || bvalid) begin
            if (arvalid && arready)
                flex_dram_ar(int'(arid), int'(araddr), int'(arlen), int'(arsize), int'(arburst));
            if (awvalid && awready)
                flex_dram_aw(int'(awid), int'(awaddr), int'(awlen), int'(awsize), int'(awburst));
            if (wvalid && wready && flex_dram_w(wdata, int'(wstrb), wlast) != 0)
                $fatal(1, "DRAM: write beat without an address, or WLAST in the wrong beat");
            if (!rvalid || rready) begin
                rvalid <= flex_dram_r(id, data, response, last);
                rid <= ID_WIDTH'(id);
                rdata <= data;
                rresp <= response[1:0];
                rlast <= last;
            end
            if (!bvalid || bready) begin
                bvalid <= flex_dram_b(id, response);
                bid <= ID_WIDTH'(id);
                bresp <= response[1:0];
            end
            status = flex_dram_status();
            arready <= status[0];
            awready <= status[1];
            wready <= status[2];
            busy <= status[3];
        end
    end
endmodule
